"""Our own names, for recordings of other models that were recorded with these names."""

from parity_tests.names.table import Name, NameTable

OWN = NameTable(
    forms=(),
    inputs=(),
    layers=(),
    outputs=(
        Name("outputs/*", "outputs/*", "*"),
        Name("metrics/*", "metrics/*", "", kind="metrics"),
        Name("*", "*", "*"),
    ),
)
