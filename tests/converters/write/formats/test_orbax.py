"""Orbax items: Orbax opens them without arguments and warnings, leaf for leaf."""

import json
from pathlib import Path

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

from converters.arrays.lazy import Source
from converters.errors import VerificationError
from converters.plan.leaves import PlannedLeaf
from converters.stores.local import LocalStore
from converters.write.formats.orbax import (
    OrbaxSink,
    chunk_key,
    directory,
    tree_metadata,
    zarr_dtype,
)
from converters.write.formats.sink import Tile
from converters.write.jobs import Settings, do_job, make_jobs
from tests.leaves import MemoryLeaf, values_of, zarr_leaf

TREE = {
    "params/embedder/embedding": values_of((40, 6)),
    "params/layers_0/attention/out/kernel": values_of((6, 2, 3), "bfloat16"),
    "params/layers_0/mlp/up/kernel": values_of((6, 9), "int8"),
    "params/final_norm/scale": values_of((6,), "float64"),
    "params/flags": values_of((3, 2), "bool"),
    "params/empty": values_of((0, 4)),
    "state/step": np.array(7, np.uint32),
    "state/optimizer/adam/count": np.array(7, np.int32),
    "state/optimizer/adam/mu/names.with.dots#3": values_of((4,)),
}


def planned(tree: dict[str, np.ndarray]) -> list[PlannedLeaf]:
    return [
        PlannedLeaf(target, Source(MemoryLeaf(values, values.shape, target)), "rename")
        for target, values in tree.items()
    ]


def write(place: Path, leaves: list[PlannedLeaf], limit: int = 64) -> OrbaxSink:
    sink = OrbaxSink(LocalStore(place))
    for job in make_jobs(leaves):
        do_job(job, sink, Settings(limit, "full"), lambda nbytes: None)
    sink.finish(leaves)
    return sink


def flat(tree: object, prefix: str) -> dict[str, np.ndarray]:
    if isinstance(tree, dict):
        return {
            path: leaf for key in tree for path, leaf in flat(tree[key], f"{prefix}/{key}").items()
        }
    assert isinstance(tree, np.ndarray)
    return {prefix: tree}


@pytest.mark.parametrize("kind", [ocp.StandardCheckpointer, ocp.PyTreeCheckpointer])
def test_orbax_restores_it_with_no_argument(kind: type, tmp_path: Path):
    write(tmp_path, planned(TREE))
    found: dict[str, np.ndarray] = {}
    with kind() as checkpointer:
        for item in ("params", "state"):
            found |= flat(checkpointer.restore(tmp_path / item), item)
    assert set(found) == set(TREE)
    for target, values in TREE.items():
        assert (found[target].dtype, found[target].shape) == (values.dtype, values.shape), target
        assert found[target].tobytes() == values.tobytes(), target


def test_moved_chunks_restore_too(tmp_path: Path):
    values = values_of((20, 6), "bfloat16")
    leaf = zarr_leaf(tmp_path / "in", values, (8, 6))
    write(tmp_path / "out", [PlannedLeaf("params/a/b", Source(leaf), "rename")])
    with ocp.StandardCheckpointer() as checkpointer:
        found = checkpointer.restore(tmp_path / "out" / "params")
    assert found["a"]["b"].tobytes() == values.tobytes()


def test_its_tree_is_that_of_orbax(tmp_path: Path):
    leaves = planned({"params/a/b": values_of((2,)), "params/c": values_of((3, 1))})
    write(tmp_path / "ours", leaves)
    with ocp.PyTreeCheckpointer(use_ocdbt=False) as checkpointer:
        checkpointer.save(
            tmp_path / "theirs", {"a": {"b": values_of((2,))}, "c": values_of((3, 1))}
        )
    ours = json.loads((tmp_path / "ours" / "params" / "_METADATA").read_text())
    theirs = json.loads((tmp_path / "theirs" / "_METADATA").read_text())
    assert set(ours["tree_metadata"]) == set(theirs["tree_metadata"])
    for name, about in ours["tree_metadata"].items():
        assert about["key_metadata"] == theirs["tree_metadata"][name]["key_metadata"]
        wanted = theirs["tree_metadata"][name]["value_metadata"]
        assert about["value_metadata"]["value_type"] == wanted["value_type"]
    shared = {key: ours[key] for key in ("use_ocdbt", "use_zarr3")}
    assert shared == {key: theirs[key] for key in shared}
    for name in ("a.b", "c"):
        mine = json.loads((tmp_path / "ours" / "params" / name / ".zarray").read_text())
        other = json.loads((tmp_path / "theirs" / name / ".zarray").read_text())
        assert mine == other
    assert not list(tmp_path.glob("ours/**/_sharding"))


def test_every_item_is_marked_as_whole(tmp_path: Path):
    write(tmp_path, planned(TREE))
    for item in ("params", "state"):
        names = {place.name for place in (tmp_path / item).iterdir() if place.is_file()}
        assert names == {"_METADATA", "_CHECKPOINT_METADATA", "commit_success.txt"}


@pytest.mark.parametrize("shape", [(10, 7), (1, 9), (5,)])
def test_chunks_at_the_edge_are_filled_up(shape: tuple[int, ...], tmp_path: Path):
    values = values_of(shape)
    sink = write(tmp_path, planned({"params/a": values}), limit=24)
    kvstore = {"driver": "file", "path": f"{tmp_path}/params/a/"}
    array = ts.open({"driver": "zarr", "kvstore": kvstore}, read=True).result()
    assert array.read().result().tobytes() == values.tobytes()
    leaf = sink.stored(planned({"params/a": values})[0])
    sizes = {
        len(leaf.codec.decode(leaf.store.read(name), leaf.chunk_nbytes))
        for name in leaf.chunk_names()
    }  # type: ignore[union-attr]
    assert sizes == {leaf.chunk_nbytes}


def test_what_was_written_and_does_not_decode(tmp_path: Path):
    (leaf,) = planned({"params/a": values_of((4,))})
    sink = OrbaxSink(LocalStore(tmp_path))
    tile = Tile((4,), (0,), (slice(0, 4),))
    sink.create(leaf, (4,))
    sink.write(leaf, tile, values_of((4,)))
    assert sink.read(leaf, tile).tobytes() == values_of((4,)).tobytes()
    file = tmp_path / "params" / "a" / "0"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(VerificationError, match=r"params/a: .*params/a/0 does not read back"):
        sink.read(leaf, tile)


def test_large_chunks_do_not_move_to_an_object_store(tmp_path: Path):
    leaf = zarr_leaf(tmp_path / "in", values_of((100,)), (100,))
    store = LocalStore(tmp_path / "out")
    store.is_object_store = True  # type: ignore[misc]
    (target,) = planned({"params/a": values_of((100,))})
    sink = OrbaxSink(store)
    assert sink.take_chunks(target, leaf, 100) is None
    assert not (tmp_path / "out").exists()
    assert sink.take_chunks(target, leaf, 1000) is not None


def test_names():
    assert directory("params/a/b/c") == "params/a.b.c"
    assert chunk_key("params/a/b", (1, 2)) == "params/a.b/1.2"
    assert chunk_key("state/step", ()) == "state/step/0"


@pytest.mark.parametrize(
    ("dtype", "name"),
    [("float32", "<f4"), (">i8", "<i8"), ("bool", "|b1"), ("int8", "|i1"), ("bfloat16", "bfloat16"),
     ("int4", "int4"), ("float8_e4m3fn", "float8_e4m3fn"), ("float8_e5m2", "float8_e5m2")],
)  # fmt: skip
def test_names_of_dtypes(dtype: str, name: str, tmp_path: Path):
    assert zarr_dtype(np.dtype(dtype)) == name
    values = np.arange(4).astype(np.dtype(dtype).newbyteorder("=")).reshape(2, 2)
    write(tmp_path, planned({"params/a": values}))
    kvstore = {"driver": "file", "path": f"{tmp_path}/params/a/"}
    found = ts.open({"driver": "zarr", "kvstore": kvstore}, read=True).result().read().result()
    assert (found.dtype, found.tobytes()) == (values.dtype, values.tobytes())


def test_keys_of_the_tree():
    (leaf,) = planned({"params/a/b": values_of((2,))})
    assert tree_metadata([leaf])["tree_metadata"] == {
        "('a', 'b')": {
            "key_metadata": [{"key": "a", "key_type": 2}, {"key": "b", "key_type": 2}],
            "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False},
        }
    }
