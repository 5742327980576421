import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.errors import CheckpointError
from converters.paxml.sources.msgpack import read_index
from converters.paxml.sources.treedef import parse_treedef
from converters.stores.local import LocalStore


def parse(inside: str) -> Any:
    return parse_treedef(f"PyTreeDef(CustomNode(TrainState[()], [*, {inside}]))")


@pytest.mark.parametrize(
    ("node", "paths"),
    [
        ("{'params': {'a': *, 'b': *}}, [], ()", ["mdl_vars/params/a", "mdl_vars/params/b"]),
        ("{'a': (*, [*])}, [], ()", ["mdl_vars/a/0", "mdl_vars/a/1/0"]),
        ("{'a': (*,)}, [], ()", ["mdl_vars/a/0"]),
        ("{}, [(CustomNode(NestedMap[('count',)], [*]),)], ()", ["opt_states/0/0/count"]),
        (
            "{}, [CustomNode(NestedMap[('no_prefix', 'p#3#i-1')], [(*,), (*,)])], ()",
            ["opt_states/0/no_prefix/0", "opt_states/0/p#3#i-1/0"],
        ),
        (
            "{}, [CustomNode(namedtuple[ShardedAdafactorState], [*, *, *, *, *, *])], ()",
            [f"opt_states/0/{name}" for name in ("count", "m", "m_scale", "vr", "vc", "v")],
        ),
        ("{}, [CustomNode(namedtuple[TraceState], [{'w': *}])], ()", ["opt_states/0/trace/w"]),
        (
            "{}, [CustomNode(namedtuple[<class 'optax._src.x.TraceState'>], [{'w': *}])], ()",
            ["opt_states/0/trace/w"],
        ),
        ("CustomNode(FrozenDict[()], [{'a': *}]), [], ()", ["mdl_vars/0/a"]),
        (
            "CustomNode(<class 'a.NestedMap'>[['x', 'y']], [*, *]), [], ()",
            ["mdl_vars/x", "mdl_vars/y"],
        ),
        (
            "{}, [CustomNode(Odd[{'k': [1, (2)]}], [*, *])], ()",
            ["opt_states/0/0", "opt_states/0/1"],
        ),
        (
            "{'it\\'s': *, \"a'b\": *, 3: *}, [], ()",
            ["mdl_vars/it's", "mdl_vars/a'b", "mdl_vars/3"],
        ),
        ("{'a':*,'b' : * } , [ ] , ( )", ["mdl_vars/a", "mdl_vars/b"]),
    ],
)
def test_paths(node: str, paths: list[str]) -> None:
    assert list(parse(node).leaves) == ["step", *paths]


def test_masked_and_empty_places() -> None:
    tree = parse(
        "{'params': {'a': CustomNode(namedtuple[MaskedNode], []), 'b': None, 'c': {}}}, "
        "[CustomNode(BpropMaskedNode[()], []), CustomNode(namedtuple[EmptyState], [])], None"
    )
    assert tree.leaves == ("step",)
    assert tree.masked == ("mdl_vars/params/a", "mdl_vars/params/b", "opt_states/0")
    assert tree.empty == ("mdl_vars/params/c", "opt_states/1", "extra_state")


def test_train_state_of_three_fields() -> None:
    tree = parse_treedef("PyTreeDef(CustomNode(<class 'x.TrainState'>[()], [*, {'a': *}, [*]]))")
    assert tree.leaves == ("step", "mdl_vars/a", "opt_states/0")


def test_unknown_nodes_are_told() -> None:
    assert parse("{}, [CustomNode(Odd[()], [*])], ()").unnamed == ("opt_states/0",)
    assert parse("{}, [CustomNode(Odd[('x',)], [*])], ()").unnamed == ()


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "character 0 .*expected 'PyTreeDef"),
        ("PyTreeDef(*", "expected '\\)'"),
        ("PyTreeDef({'a': *}) and more", "text follows the end"),
        ("PyTreeDef({'a' *})", "expected a key and ':'"),
        ("PyTreeDef({'a': ?})", "character 16 .*expected a leaf"),
        ("PyTreeDef([*, *)", "expected ','"),
        ("PyTreeDef(CustomNode(A[('x'", "no end"),
        ("PyTreeDef(CustomNode(, [*]))", "expected the type"),
        ("PyTreeDef(" + "[" * 1000, "nested deeper than 128"),
        ("PyTreeDef({'../a': *})", "could lead out of the directory"),
        ("PyTreeDef({'': *})", "could lead out of the directory"),
        ("__import__('os').system('true')", "expected 'PyTreeDef"),
    ],
)
def test_anything_else_is_an_error(text: str, cause: str) -> None:
    with pytest.raises(CheckpointError, match=cause):
        parse_treedef(text)


@pytest.mark.parametrize(
    "case",
    ["LlamaAdafactor_flax", "LlamaRepeatEma_v00flax_file", "PmapGpt_flax", "LlamaWeightsOnly_flax"],
)
def test_real_texts_name_each_leaf_once(case: str, recording: Callable[[str], Path]) -> None:
    places = (recording(case) / "checkpoint").rglob("checkpoint*")
    (file,) = [place for place in places if place.is_file()]
    index = read_index(LocalStore(file.parent), file.name)
    tree = parse_treedef(index["str_pytree_state"])
    assert len(tree.leaves) == len(set(tree.leaves)) == len(index["flattened_state"])
    assert tree.unnamed == ()


def test_time_is_linear() -> None:
    text = "{" + ", ".join(f"'layer_{i}': {{'w': *, 'b': *}}" for i in range(20_000)) + "}, [], ()"
    start = time.process_time()
    assert len(parse(text).leaves) == 40_001
    assert time.process_time() - start < 10


LETTERS = st.characters(codec="utf-8", exclude_characters="/\\\0", exclude_categories=["C"])
KEYS = st.text(LETTERS, min_size=1, max_size=8).filter(lambda key: ".." not in key and key != ".")
TREES = st.recursive(
    st.just(np.zeros(())) | st.none(),
    lambda inner: st.dictionaries(KEYS, inner, max_size=3) | st.lists(inner, max_size=3)
    | st.lists(inner, max_size=3).map(tuple),
    max_leaves=12,
)  # fmt: skip


@given(TREES)
def test_reads_what_jax_prints(tree: Any) -> None:
    import jax

    flat, treedef = jax.tree_util.tree_flatten_with_path([tree])
    names = [[getattr(key, "key", getattr(key, "idx", None)) for key in path] for path, _ in flat]
    wanted = ["/".join(map(str, name)) for name in names]
    assert list(parse_treedef(str(treedef)).leaves) == wanted


@given(st.text(alphabet="*[](){}'\",: \\aNone0PyTreeDefCustm", max_size=60))
def test_any_text_parses_or_is_an_error(text: str) -> None:
    try:
        found = parse_treedef(f"PyTreeDef({text})")
    except CheckpointError:
        return
    assert len(found.leaves) <= text.count("*")
