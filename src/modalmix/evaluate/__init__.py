"""Ranking, metrics, floors: numbers nobody can fool."""
