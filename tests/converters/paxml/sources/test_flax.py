from pathlib import Path

import msgpack
import numpy as np
import pytest

from converters.errors import CheckpointError
from converters.paxml.sources.contents import Contents
from converters.paxml.sources.flax import read_flax
from converters.stores.local import LocalStore
from tests.paxml_states import packed, write_flax

TREEDEF = "PyTreeDef(CustomNode(TrainState[()], [*, {'params': {%s}}, [], ()]))"


def treedef(count: int) -> str:
    return TREEDEF % ", ".join(f"'w{i}': *" for i in range(count))


def read(folder: Path) -> Contents:
    return read_flax(LocalStore(folder), "checkpoint")


def test_leaves_in_a_dict_come_in_numeric_order(tmp_path: Path) -> None:
    leaves = [np.array(i, np.int32) for i in range(13)]
    keyed = {str(i): packed(leaf) for i, leaf in enumerate(leaves)}
    write_flax(tmp_path / "checkpoint", dict(sorted(keyed.items())), treedef(12))
    contents = read(tmp_path)
    assert int(contents.leaves["mdl_vars/params/w1"].read()) == 2
    assert int(contents.leaves["mdl_vars/params/w10"].read()) == 11


def test_masked_leaves_and_numbers(tmp_path: Path) -> None:
    write_flax(tmp_path / "checkpoint", [7, None, {}, 1.5], treedef(3))
    contents = read(tmp_path)
    assert contents.masked == ["mdl_vars/params/w0", "mdl_vars/params/w1"]
    step, weight = contents.leaves["step"], contents.leaves["mdl_vars/params/w2"]
    assert (int(step.read()), float(weight.reader(1).read(()))) == (7, 1.5)
    assert step.spec.shape == step.chunks == ()


def test_values_that_are_no_arrays(tmp_path: Path) -> None:
    write_flax(tmp_path / "checkpoint", [7, "text"], treedef(1))
    assert read(tmp_path).problems[0].startswith("mdl_vars/params/w0: expected an array in ")


def test_unknown_nodes_are_noted(tmp_path: Path) -> None:
    text = "PyTreeDef(CustomNode(TrainState[()], [*, {'a': CustomNode(Odd[()], [*])}, [], ()]))"
    write_flax(tmp_path / "checkpoint", [7, 1.5], text)
    assert read(tmp_path).notes == [
        "mdl_vars/a: a node of unknown type; its fields have no names in the file and are numbered"
    ]


@pytest.mark.parametrize(
    ("root", "text"),
    [
        ({"step": 1, "mdl_vars": {}}, "whose arrays are missing: no manifest.ocdbt"),
        ({"version": 1, "optimizer": {}}, "a T5X checkpoint"),
        ({"model": 1}, r"a msgpack file of something else \(keys model\)"),
        ([1], "its root is a list"),
        ({"flattened_state": 3, "str_pytree_state": ""}, "expected a list of arrays"),
        (
            {"flattened_state": {"0": 1, "2": 2}, "str_pytree_state": ""},
            "expected a list of arrays",
        ),
        ({"flattened_state": [], "str_pytree_state": None}, "found list and NoneType"),
        (
            {"flattened_state": [1, 2], "str_pytree_state": "PyTreeDef({'a': *, 'a': *})"},
            "names a twice",
        ),
    ],
)
def test_something_else(root: object, text: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(msgpack.packb(root))
    with pytest.raises(CheckpointError, match=text):
        read(tmp_path)
