"""The commands `recommend`, `generate` and `forecast`: parse, call one function, print.

Read `recommend`, whose histories `requests` reads, `generate` and `forecast`.
"""
