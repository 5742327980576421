"""Reads what PAXml wrote: checkpoints of any layout, dumps of jobs, states of optimizers."""
