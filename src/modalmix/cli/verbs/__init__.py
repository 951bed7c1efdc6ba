"""The verbs: `modalmix VERB` runs `main(arguments)` of the file of that name."""
