"""Sequences of items as batches: files, synthetic processes."""
