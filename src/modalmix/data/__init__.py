"""Data: records, readers, splits, samplers, the planted shop. Needs no torch."""
