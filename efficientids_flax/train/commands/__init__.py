"""The commands `train`, `evaluate` and `export`: parse, call one function, print."""
