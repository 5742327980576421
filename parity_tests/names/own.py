"""Our own names: for recordings of models elsewhere that were recorded under them."""

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
