"""The commands `recommend` and `generate`: parse, call one function, print."""
