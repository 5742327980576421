"""Safetensors files open with the official library, in one file or in shards."""

import json
from pathlib import Path

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from converters.arrays.lazy import Array, Source
from converters.arrays.structure import Transposed
from converters.errors import OutputError
from converters.plan.leaves import PlannedLeaf
from converters.stores.local import LocalStore
from converters.write.formats.safetensors import DTYPES, SafetensorsSink
from converters.write.jobs import Settings, do_job, make_jobs
from tests.leaves import MemoryLeaf, values_of

TREE = {
    "params/embedder/embedding": values_of((40, 6)),
    "params/layers_0/attention/out/kernel": values_of((6, 2, 3), "bfloat16"),
    "params/layers_0/mlp/up/kernel": values_of((6, 9), "int8"),
    "params/final_norm/scale": values_of((6,), "float64"),
    "params/flags": values_of((3, 1), "bool"),
    "params/empty": values_of((0, 4)),
    "state/step": np.array(7, np.uint32),
    "state/optimizer/adam/mu/a": values_of((5, 4)),
}


def planned(tree: dict[str, np.ndarray]) -> list[PlannedLeaf]:
    return [
        PlannedLeaf(target, Source(MemoryLeaf(values, values.shape, target)), "rename")
        for target, values in tree.items()
    ]


def write(place: Path, leaves: list[PlannedLeaf], limit: int = 64, **options: int) -> None:
    sink = SafetensorsSink(LocalStore(place), leaves, **options)
    for job in make_jobs(leaves):
        do_job(job, sink, Settings(limit, "full"), lambda nbytes: None)
    sink.finish(leaves)


def assert_holds(place: Path, files: dict[str, str]) -> None:
    """Check that the library reads `TREE` from the files; `files` maps targets to files."""
    assert {f"{item}/{name}" for item, name in map(split, TREE)} == set(files)
    for target, values in TREE.items():
        found = load_file(place / files[target])[split(target)[1]]
        assert (found.dtype, found.shape) == (values.dtype, values.shape), target
        assert found.tobytes() == values.tobytes(), target


def split(target: str) -> tuple[str, str]:
    item, _, name = target.partition("/")
    return item, name


@pytest.mark.parametrize("limit", [1, 24, 1 << 20])
def test_a_file_an_item(limit: int, tmp_path: Path):
    write(tmp_path, planned(TREE), limit)
    assert {p.name for p in tmp_path.iterdir()} == {"params.safetensors", "state.safetensors"}
    assert_holds(tmp_path, {target: f"{split(target)[0]}.safetensors" for target in TREE})


@pytest.mark.parametrize("shard", [1, 100, 1000])
def test_shards_with_an_index(shard: int, tmp_path: Path):
    write(tmp_path, planned(TREE), shard=shard)
    index = json.loads((tmp_path / "params.safetensors.index.json").read_text())
    params = [target for target in TREE if target.startswith("params/")]
    assert index["metadata"]["total_size"] == sum(TREE[target].nbytes for target in params)
    files = {f"params/{name}": file for name, file in index["weight_map"].items()}
    assert sorted(files) == sorted(params)
    count = len(set(files.values()))
    names = [f"params-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    assert sorted(set(files.values())) == names
    for name in names:
        held = load_file(tmp_path / name)
        assert sum(v.nbytes for v in held.values()) <= shard or len(held) <= 2
    if (tmp_path / "state.safetensors.index.json").exists():
        state = json.loads((tmp_path / "state.safetensors.index.json").read_text())["weight_map"]
        files |= {f"state/{name}": file for name, file in state.items()}
    else:
        files |= {t: "state.safetensors" for t in TREE if t.startswith("state/")}
    assert_holds(tmp_path, files)


def test_the_library_reads_the_header(tmp_path: Path):
    write(tmp_path, planned(TREE))
    with safe_open(tmp_path / "params.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "flax"}
        assert set(file.keys()) == {t.partition("/")[2] for t in TREE if t.startswith("params/")}


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_every_dtype_that_both_know(dtype: str, tmp_path: Path):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    write(tmp_path, planned({"params/a": values}))
    data = (tmp_path / "params.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    about = json.loads(data[8 : 8 + length])["a"]
    assert (about["dtype"], about["shape"]) == (DTYPES[dtype], [2, 3])
    start, stop = (8 + length + offset for offset in about["data_offsets"])
    assert data[start:stop] == values.tobytes()
    assert start % values.itemsize == 0


@pytest.mark.parametrize("limit", [1, 8, 40, 100, 1 << 20])
@pytest.mark.parametrize("chunks", [(2, 3, 4), (1, 2, 5), (4, 1, 2), (4, 6, 5)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_tiles_of_any_shape_are_put_in_place(
    limit: int, chunks: tuple[int, ...], axes: tuple[int, ...], tmp_path: Path
):
    values = values_of((4, 6, 5))
    array: Array = Transposed(Source(MemoryLeaf(values, chunks)), axes)
    write(tmp_path, [PlannedLeaf("params/a", array, "transpose")], limit)
    found = load_file(tmp_path / "params.safetensors")["a"]
    assert np.array_equal(found, values.transpose(axes))


def test_a_dtype_that_the_format_lacks(tmp_path: Path):
    leaves = planned({"params/a": values_of((2,)), "params/b": values_of((2,), "int4")})
    with pytest.raises(OutputError, match="params/b: safetensors has no dtype int4"):
        SafetensorsSink(LocalStore(tmp_path), leaves)
    assert list(tmp_path.iterdir()) == []


def test_only_local_disks():
    class Bucket(LocalStore):
        def local_path(self, key: str = "") -> None:  # type: ignore[override]
            del key

    store = Bucket(Path("bucket"))
    with pytest.raises(OutputError, match="bucket: safetensors are written to local disks"):
        SafetensorsSink(store, planned(TREE))


def test_a_resumed_file_keeps_what_is_in_it(tmp_path: Path):
    leaves = planned(TREE)
    write(tmp_path, leaves)
    sink = SafetensorsSink(LocalStore(tmp_path), leaves)
    sink.create(leaves[0], (1, 1))
    assert_holds(tmp_path, {target: f"{split(target)[0]}.safetensors" for target in TREE})
