import json
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from converters.errors import CheckpointError
from converters.paxml.checkpoint import open_checkpoint
from converters.paxml.sources.listing import Listing
from converters.paxml.sources.tree import read_trees
from converters.stores.local import LocalStore
from tests import paxml_states as states


def metadata(folder: Path, *entries: tuple[list[str], str, bool]) -> None:
    found = {
        str(tuple(keys)): {
            "key_metadata": [{"key": key, "key_type": 2} for key in keys],
            "value_metadata": {"value_type": kind, "skip_deserialize": skipped},
        }
        for keys, kind, skipped in entries
    }
    (folder / "_METADATA").write_text(json.dumps({"tree_metadata": found}))


def aggregate(folder: Path, tree: Any) -> None:
    (folder / "checkpoint").write_bytes(msgpack.packb(tree))


def test_metadata(tmp_path: Path) -> None:
    metadata(
        tmp_path,
        (["step"], "jax.Array", False),
        (["mdl_vars", "a.b", "w"], "np.ndarray", False),
        (["opt_states"], "List", True),
        (["opt_states", "0", "m", "w"], "None", True),
        (["opt_states", "0", "1"], "Dict", True),
        (["extra_state"], "None", True),
        (["mdl_vars", "name"], "string", False),
    )
    (tree,) = read_trees(Listing(LocalStore(tmp_path)), "")
    assert tree.arrays == {"step": "step", "mdl_vars.a.b.w": "mdl_vars/a.b/w"}
    assert tree.masked == ["opt_states/0/m/w"]
    assert tree.empty == ["opt_states", "opt_states/0/1", "extra_state"]
    assert tree.problems == ["mdl_vars/name: a text; a TrainState holds arrays only"]


def test_aggregate(tmp_path: Path) -> None:
    aggregate(
        tmp_path,
        {
            "step": "PLACEHOLDER://step",
            "mdl_vars": {"w": [None, "PLACEHOLDER://mdl_vars.w.1", {}], "x": "text", "y": 3},
            "opt_states": "PLACEHOLDER://opt_states",
            "extra_state": None,
        },
    )
    (tree,) = read_trees(Listing(LocalStore(tmp_path)), "")
    assert set(tree.arrays) == {"step", "mdl_vars.w.1", "opt_states"}
    assert tree.optional == {"opt_states"}
    assert (tree.masked, tree.empty) == (["mdl_vars/w/0"], ["mdl_vars/w/2", "extra_state"])
    assert tree.values == {"mdl_vars/y": 3}
    assert tree.problems[0].endswith("mdl_vars.x is 'text', expected an array")


@pytest.mark.parametrize(
    "data", ["{", "[]", "{}", '{"tree_metadata": {"a": {}}}', '{"tree_metadata": 3}']
)
def test_damaged_metadata(data: str, tmp_path: Path) -> None:
    (tmp_path / "_METADATA").write_text(data)
    with pytest.raises(CheckpointError, match="_METADATA: not the tree that Orbax writes"):
        read_trees(Listing(LocalStore(tmp_path)), "")


def test_values_inside_the_aggregate_are_leaves(tmp_path: Path) -> None:
    """Orbax can put small arrays into `checkpoint` itself (`SaveArgs(aggregate=True)`)."""
    arrays = states.adam_state(a=np.ones(3, np.float32))
    state = tmp_path / "checkpoint_00000004" / "state"
    states.write_ocdbt(state, arrays)
    tree = msgpack.unpackb((state / "checkpoint").read_bytes())
    tree["mdl_vars"]["params"]["inside"] = states.packed(np.arange(4, dtype=np.int8))
    (state / "checkpoint").write_bytes(msgpack.packb(tree))
    leaf = open_checkpoint(tmp_path).leaves["mdl_vars/params/inside"]
    assert leaf.read().tolist() == [0, 1, 2, 3]
    assert leaf.spec.location == "state/checkpoint"
