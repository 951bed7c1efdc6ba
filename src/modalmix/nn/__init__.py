"""Pure tensor code, each formula once. Imports nothing of ours."""
