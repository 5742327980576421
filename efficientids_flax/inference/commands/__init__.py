"""The commands `recommend` and `generate`: parse, call one function, print.

Read `recommend`, whose histories `requests` reads, and `generate`.
"""
