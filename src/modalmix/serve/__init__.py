"""Recommendations from a run folder."""
