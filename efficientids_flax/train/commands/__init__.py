"""The commands `train`, `evaluate` and `export`: parse, call one function, print.

Read `flags`, the settings that have a flag of their own, then `train`, `evaluate`, `export`.
"""
