"""The table for any tree: every leaf under the name it has."""

from hypothesis import given
from hypothesis import strategies as st

from converters.arrays.lazy import Array, Source
from converters.rules.apply import apply_rules
from converters.rules.families import GENERIC
from tests.leaves import FEW, MemoryLeaf, values_of

names = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=6)


@given(names=st.lists(names, min_size=1, max_size=5, unique=True), depth=st.integers(0, 3))
@FEW
def test_any_names(names: list[str], depth: int):
    values = values_of((2,))
    paths = ["/".join([*["folder"] * depth, name]) for name in names]
    arrays: dict[str, Array] = {path: Source(MemoryLeaf(values, (2,), path)) for path in paths}
    found = apply_rules(arrays, GENERIC)
    assert {leaf.target: leaf.array for leaf in found.leaves} == arrays
