"""One training loop and the run folder it leaves behind."""
