"""The commands of conversions, a file each: parse, call one function, print."""
