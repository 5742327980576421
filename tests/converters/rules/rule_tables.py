"""Trees and tables for tests of rules."""

from collections.abc import Mapping, Sequence

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest

from converters.arrays.lazy import Array, Source
from converters.arrays.leaf import whole
from converters.errors import MappingError
from converters.rules.apply import RuledTree, apply_rules
from converters.rules.language import Ignore, Rule
from tests.leaves import MemoryLeaf, own_readers, values_of

Values = dict[str, np.ndarray]


def tree(**shapes: Sequence[int]) -> Values:
    """Random values for paths; `__` in a keyword stands for '/'."""
    return {
        path.replace("__", "/"): values_of(shape, seed=number)
        for number, (path, shape) in enumerate(shapes.items())
    }


def sources(values: Mapping[str, np.ndarray]) -> dict[str, Array]:
    return {path: Source(MemoryLeaf(v, v.shape, path)) for path, v in values.items()}


def apply(values: Mapping[str, np.ndarray], *rules: Rule | Ignore) -> RuledTree:
    ignores = [rule for rule in rules if isinstance(rule, Ignore)]
    return apply_rules(sources(values), [r for r in rules if isinstance(r, Rule)], ignores)


def results(found: RuledTree) -> Values:
    """The values of every target."""
    return {m.target: m.array.read(whole(m.array.shape), own_readers) for m in found.leaves}


def assert_equal(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    assert set(found) == set(wanted)
    for path, values in wanted.items():
        assert (found[path].dtype, found[path].shape) == (values.dtype, values.shape), path
        assert found[path].tobytes() == values.tobytes(), path


def fails(values: Mapping[str, np.ndarray], *rules: Rule | Ignore) -> str:
    with pytest.raises(MappingError) as caught:
        apply(values, *rules)
    return str(caught.value)
