"""The command `cluster`: parse, call one function, print."""
