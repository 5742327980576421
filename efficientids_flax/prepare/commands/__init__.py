"""The command `prepare`: parse, call one function, print."""
