"""Tensors that hold several parameters, and parameters of several tensors: both ways."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from converters.arrays import Array, Source
from converters.errors import MappingError
from converters.huggingface.in_memory import values_of
from converters.huggingface.pieces import put_together, taken_apart
from converters.huggingface.tables import TABLES, Cut
from tests.leaves import MemoryLeaf

SIZES = {"N": 4, "J": 2, "H": 1}
PARTS = (("q", "N H"), ("k", "J H"), ("v", "J H"))
TABLE = replace(
    TABLES["llama"],
    layers="h.{i}.",
    cuts={"qkv": Cut(PARTS, "J"), "row": Cut((("a", "N H"), ("b", "J H"), ("c", "J H")))},
    stacks={"norm": "norms.{j}.w"},
)


def named(values: Mapping[str, Any]) -> dict[str, Array]:
    """Name -> array of these values."""
    found = {name: np.asarray(value, np.float32) for name, value in values.items()}
    return {name: Source(MemoryLeaf(value, value.shape, name)) for name, value in found.items()}


def apart(values: Mapping[str, Any]) -> dict[str, list[float]]:
    found = taken_apart(named(values), TABLE, TABLE.layers, SIZES)
    return {name: values_of(array).tolist() for name, array in found.items()}


def test_heads_of_keys_lie_between_queries_and_values() -> None:
    found = apart({"h.0.qkv": [10, 11, 20, 30, 12, 13, 21, 31]})
    assert found == {"h.0.q": [10, 11, 12, 13], "h.0.k": [20, 21], "h.0.v": [30, 31]}


def test_one_block_is_one_part_after_another() -> None:
    found = apart({"h.3.row": range(8)})
    assert found == {"h.3.a": [0, 1, 2, 3], "h.3.b": [4, 5], "h.3.c": [6, 7]}


def test_numbered_tensors_are_stacked_by_their_numbers() -> None:
    values = {f"h.0.norms.{number}.w": [number, -number] for number in (10, *range(10))}
    assert apart(values) == {"h.0.norm": [[number, -number] for number in range(11)]}


def test_other_tensors_stay() -> None:
    values = {"h.0.other": [1], "qkv": [2], "x.h.0.qkv": [3]}
    assert apart(values) == values


def test_what_was_taken_apart_is_put_together() -> None:
    values = named(
        {
            "h.0.qkv": np.arange(24).reshape(8, 3),
            "h.1.qkv": np.arange(8),
            "h.1.row": np.arange(16).reshape(8, 2),
            **{f"h.0.norms.{number}.w": [number, 5] for number in range(3)},
            "wte": [1, 2],
        }
    )
    pieces = taken_apart(values, TABLE, TABLE.layers, SIZES)
    found = {name: array for name, array, *_ in put_together(pieces, TABLE, TABLE.layers, SIZES)}
    assert found.keys() == values.keys()
    for name, array in values.items():
        np.testing.assert_array_equal(values_of(found[name]), values_of(array), name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"h.0.qkv": range(7)}, r"h.0.qkv: found \[7\]; its parts have \[4, 2, 2\] rows, 8 in all"),
        ({"h.0.qkv": 1.0}, r"h.0.qkv: found \[\]"),
        (
            {"h.0.norms.0.w": [1], "h.0.norms.2.w": [1]},
            "h.0.norm: there are 2 tensors of it, and none with number 1",
        ),
        (
            {"h.0.norms.0.w": [1], "h.0.norms.1.w": [1, 2]},
            "h.0.norm: cannot be put together",
        ),
    ],
)
def test_what_does_not_fit_is_named(values: Mapping[str, Any], message: str) -> None:
    with pytest.raises(MappingError, match=message):
        apart(values)


def test_a_missing_part_is_named() -> None:
    values = named({"h.0.k": [1, 2], "h.0.v": [1, 2]})
    with pytest.raises(MappingError, match="has 3 parts, of which 2 are there"):
        list(put_together(values, TABLE, TABLE.layers, SIZES))
