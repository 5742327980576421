"""The commands of conversions, a file each: parse, call one function, print.

Read `convert`, then `inspect`, `convert_hf` and `convert_clustering`; `work` has what those that
write a checkpoint share, `show` how plans and reports look.
"""
