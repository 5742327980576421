"""Plans: what their lines say, and what their fingerprint depends on."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.arrays.lazy import Array, Source
from converters.arrays.structure import Joined
from converters.arrays.values import Cast
from converters.errors import MappingError
from converters.plan import PlanOptions
from converters.plan.leaves import Plan, PlannedLeaf, planned
from converters.rules.apply import Mapped
from converters.rules.language import Rule
from tests.leaves import MemoryLeaf, values_of


def source(path: str, shape: tuple[int, ...] = (4, 6), chunks: tuple[int, ...] = (2, 6)) -> Array:
    return Source(MemoryLeaf(values_of(shape), chunks, path))


PLAN = Plan(
    source="job/checkpoints/checkpoint_00000004",
    step=4,
    layout="zarr",
    family="generic",
    leaves=(
        PlannedLeaf("params/a", source("x"), "rename"),
        PlannedLeaf("params/b", Cast(source("y"), np.dtype(np.float16)), "cast float16"),
    ),
    ignored=(("z", "not used"),),
    config={"family": "generic"},
    provenance={},
    rules=("a <- x",),
    notes=("a note",),
)


def test_a_line_describes_its_leaf():
    two = Joined((source("x"), source("y")), 0, new_axis=True)
    leaf = PlannedLeaf("params/a", Cast(two, np.dtype("float64")), "stack 0; cast float64")
    assert leaf.row() == {
        "target": "params/a",
        "sources": ["x", "y"],
        "operation": "stack 0; cast float64",
        "shape": [2, 4, 6],
        "dtype": "float64",
    }
    assert leaf.nbytes == 2 * 4 * 6 * 8


def test_a_plan_adds_up_its_leaves():
    assert PLAN.nbytes == 4 * 6 * 4 + 4 * 6 * 2


def test_lines_of_a_table():
    mapped = [
        Mapped("a", source("x"), Rule("a", "x")),
        Mapped("b", source("y"), Rule("b", "y", "o")),
    ]
    assert [(leaf.target, leaf.operation) for leaf in planned(mapped, "params/")] == [
        ("params/a", "rename"),
        ("params/b", "o"),
    ]


@pytest.mark.parametrize("target", ["params/a.b", "params/a/b"])
def test_leaves_that_would_lie_in_one_place(target: str):
    leaves = [PlannedLeaf(name, source("x"), "rename") for name in ("params/a/b", target)]
    with pytest.raises(MappingError, match=f"{target}: lies where params/a/b does"):
        dataclasses.replace(PLAN, leaves=tuple(leaves))


def test_the_fingerprint_is_that_of_an_equal_plan():
    assert dataclasses.replace(PLAN, notes=()).fingerprint(100) == PLAN.fingerprint(100)


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "other"},
        {"step": 5},
        {"config": {"family": "other"}},
        {"leaves": PLAN.leaves[:1]},
        {"leaves": PLAN.leaves[::-1]},
        {"leaves": (PLAN.leaves[0], PlannedLeaf("params/b", source("y"), "rename"))},
        {"leaves": (PLAN.leaves[0], dataclasses.replace(PLAN.leaves[1], target="params/c"))},
        {"leaves": (PLAN.leaves[0], PlannedLeaf("params/b", source("w"), "cast float16"))},
        {
            "leaves": (
                PlannedLeaf("params/a", source("x", chunks=(4, 6)), "rename"),
                PLAN.leaves[1],
            )
        },
    ],
)
def test_the_fingerprint_knows_all_that_decides_what_is_written(changes: dict[str, Any]):
    assert dataclasses.replace(PLAN, **changes).fingerprint(1 << 20) != PLAN.fingerprint(1 << 20)


def test_the_fingerprint_knows_the_tiles():
    assert PLAN.fingerprint(16) != PLAN.fingerprint(1 << 20)


def test_paths_are_kept_as_text():
    options = PlanOptions(rules=Path("a/rules.toml"), job_files=Path("job"))
    assert (options.rules, options.job_files) == ("a/rules.toml", "job")
