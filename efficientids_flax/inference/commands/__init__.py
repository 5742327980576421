"""The commands `recommend`, `generate` and `forecast`: parse, call one function, print.

Read `recommend`, whose histories `requests` reads and `raw_ids` finds the items of, `generate` and
`forecast`.
"""
