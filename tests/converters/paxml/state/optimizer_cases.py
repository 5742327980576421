"""Makes optimizer states as Praxis stores them, and converts them."""

from collections.abc import Mapping

import numpy as np

from converters.arrays.lazy import Array, Source
from converters.arrays.leaf import whole
from converters.paxml.state.optimizer import ConvertedOptimizer, convert_optimizer
from converters.rules.families import GENERIC, Table
from converters.rules.language import Rule
from tests.leaves import MemoryLeaf, own_readers

BETAS = {"beta1": 0.9, "beta2": 0.99}
GROUP = "p#3#i-1"
Values = Mapping[str, np.ndarray]


def convert(
    states: Values, *rules: Rule, betas: Mapping[str, float] | None = None
) -> ConvertedOptimizer:
    """Convert `states`, given by leaf path below `opt_states/0/`."""
    arrays: dict[str, Array] = {}
    for name, values in states.items():
        path = f"opt_states/{name}" if name.startswith("1/") else f"opt_states/0/{name}"
        arrays[path] = Source(MemoryLeaf(values, values.shape, path))
    table = Table("custom", rules or GENERIC)
    return convert_optimizer(arrays, table.apply_part, BETAS if betas is None else betas)


def read(found: ConvertedOptimizer) -> dict[str, np.ndarray]:
    return {m.target: m.array.read(whole(m.array.shape), own_readers) for m in found.leaves}


def count(value: int | list[int]) -> np.ndarray:
    return np.array(value, np.int32)


def adam(steps: int = 4, **variables: np.ndarray) -> dict[str, np.ndarray]:
    """Praxis' Adam in one group: its counter alone, then `count`, `m` and `v`."""
    states = {"no_prefix/0/count": count(steps), "no_prefix/2/count": count(steps)}
    for name, values in variables.items():
        states[f"no_prefix/2/m/params/{name}"] = values
        states[f"no_prefix/2/v/params/{name}"] = values * values
    return states


def assert_equal(found: Values, wanted: Values) -> None:
    assert set(found) == set(wanted)
    for path, values in wanted.items():
        assert (found[path].dtype, found[path].shape) == (values.dtype, values.shape), path
        assert found[path].tobytes() == values.tobytes(), path
