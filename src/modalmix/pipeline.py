"""The library in five calls: load_data, split, fit, evaluate, run."""
