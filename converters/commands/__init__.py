"""The commands that open foreign files, a file each: parse, call one function, print.

Read `convert`, then `inspect`, `convert_hf`, `convert_clustering` and `embed`; `work` has what
those that write a checkpoint share, `show` how plans and reports look.
"""
