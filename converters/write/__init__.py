"""From a plan to files: compute each leaf in pieces, write, read back, publish."""
