"""Parameters from several checkpoints, by PAXml's loading rules."""

import re
from pathlib import Path

import numpy as np
import pytest

from converters.arrays.lazy import Array, Source
from converters.arrays.leaf import whole
from converters.errors import MappingError
from converters.plan.merge import load_rules, merge, split_also
from tests.leaves import MemoryLeaf, own_readers, values_of


def arrays(seed: int, **shapes: tuple[int, ...]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for path, shape in shapes.items():
        name = path.replace("__", "/")
        found[name] = Source(MemoryLeaf(values_of(shape, seed=seed), shape, name))
    return found


def read(array: Array) -> np.ndarray:
    return array.read(whole(array.shape), own_readers)


@pytest.mark.parametrize(
    ("text", "place", "rules"),
    [
        ("job:params/.*", "job", "params/.*"),
        ("gs://bucket/job/checkpoints:rules.toml", "gs://bucket/job/checkpoints", "rules.toml"),
        ("/jobs/10:30/x:params/a,params/b", "/jobs/10:30/x", "params/a,params/b"),
        ("gs://bucket/job:params/(?:a|b)/w", "gs://bucket/job", "params/(?:a|b)/w"),
    ],
)
def test_a_specification_is_a_place_and_rules(text: str, place: str, rules: str):
    assert split_also(text) == (place, rules)


@pytest.mark.parametrize("text", ["job", "gs://bucket/job", "job:", ":params/.*", ""])
def test_a_specification_without_rules(text: str):
    with pytest.raises(MappingError, match=f"--also {re.escape(text)}: write CKPT:RULES"):
        split_also(text)


def test_patterns_fill_what_is_there_and_add_what_is_not():
    base = arrays(0, a__w=(2,), a__b=(3,), c=(4,))
    other = arrays(1, a__w=(2,), a__b=(3,), c=(4,), d=(5,))
    merged, taken = merge(base, other, load_rules("params/a/w,params/d"), "there")
    assert (sorted(merged), taken) == (["a/b", "a/w", "c", "d"], ["a/w", "d"])
    for path, array in merged.items():
        assert array is (other if path in taken else base)[path]


def test_a_pattern_stands_for_whole_names():
    base, other = arrays(0, a=(2,), ab=(2,)), arrays(1, a=(2,), ab=(2,))
    assert merge(base, other, load_rules("params/a"), "there")[1] == ["a"]


def rules_file(place: Path, text: str) -> str:
    (place / "rules.toml").write_text(text)
    return str(place / "rules.toml")


def test_a_file_renames_and_ignores(tmp_path: Path):
    rules = load_rules(
        rules_file(
            tmp_path,
            """
            load = [["params/(.*)/kernel$", "params/{}/w"], ["params/(.*)", "params/{}"]]
            ignore = ["params/item/.*"]
            """,
        )
    )
    base = arrays(0, x__kernel=(2,), item__kernel=(2,), y=(3,))
    other = arrays(1, x__w=(2,), y=(3,), item__w=(2,))
    merged, taken = merge(base, other, rules, "there")
    assert merged["x/kernel"] is other["x/w"]
    assert merged["item/kernel"] is base["item/kernel"]
    assert taken == ["x/kernel", "y", "x/w"]  # the last rule takes x/w under its own name too


def test_the_first_rule_that_matches_counts(tmp_path: Path):
    text = 'load = [["params/a", "params/b"], ["params/(.)", "params/{}"]]'
    rules = load_rules(rules_file(tmp_path, text))
    assert (rules.source("params/a"), rules.source("params/c")) == ("params/b", "params/c")
    assert rules.source("other") is None


def test_every_problem_is_in_one_error():
    base, other = arrays(0, a=(2,), b=(3,), c=(1,)), arrays(1, a=(3,), c=(1,))
    with pytest.raises(MappingError) as caught:
        merge(base, other, load_rules("params/[ab]"), "there")
    assert str(caught.value) == (
        "--also there: 2 problem(s):\n"
        "  a: there gives [3], the first checkpoint has [2]\n"
        "  b: there has no params/b"
    )


def test_rules_that_take_nothing():
    with pytest.raises(MappingError, match="no parameter matches the rules"):
        merge(arrays(0, a=(2,)), arrays(1, a=(2,)), load_rules("params/z"), "there")


@pytest.mark.parametrize(
    "text",
    [
        'load = [["(", "params/a"]]',
        'load = [["params/a"]]',
        "load = 3",
        "load = [3]",
        "ignore = ['(']",
        "ignore = [3]",
        'load = [["params/(a)", "params/{}{}"]]',
        'load = [["params/(a)", "params/{name}"]]',
        'load = [["params/(a)", "params/{"]]',
        'load = [["params/(a)", "params/{0.shape}"]]',
    ],
)
def test_a_file_that_holds_no_rules(text: str, tmp_path: Path):
    with pytest.raises(MappingError, match=r"rules\.toml: not a list of patterns"):
        load_rules(rules_file(tmp_path, text))


def test_a_file_with_another_key(tmp_path: Path):
    with pytest.raises(MappingError, match="unknown key lode, other; known: load, ignore"):
        load_rules(rules_file(tmp_path, "lode = []\nother = 1"))


def test_a_pattern_that_is_none():
    with pytest.raises(MappingError, match=r"\(: not a list of patterns"):
        load_rules("(")
