"""modalmix: recommendation from what items look like, say and sound like."""
