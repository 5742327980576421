"""The command `parity`: parse, call one function, print."""
