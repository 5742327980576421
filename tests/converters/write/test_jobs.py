"""Jobs: what is written together, in which order it is read, and what is recorded of it."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from leaves import (
    DTYPES,
    FEW,
    MemoryLeaf,
    memory_leaves,
    open_zarr,
    shapes,
    values_of,
    write_zarr,
    zarr_leaf,
)

from converters.arrays.lazy import Array, Cast, Joined, Part, Source, Split, Transposed
from converters.arrays.zarr import ZarrLeaf
from converters.errors import CheckpointError, VerificationError
from converters.plan import PlannedLeaf
from converters.storage import LocalStore
from converters.write.jobs import (
    Job,
    ReaderCache,
    Record,
    Settings,
    do_job,
    make_jobs,
    share,
    tile_shape,
)
from converters.write.orbax import OrbaxSink
from converters.write.safetensors import SafetensorsSink
from converters.write.sink import Sink, Tile


def planned(target: str, array: Array, operation: str = "rename") -> PlannedLeaf:
    return PlannedLeaf(f"params/{target}", array, operation)


def memory(path: str, *shape: int, seed: int = 0) -> Source:
    return Source(MemoryLeaf(values_of(shape, seed=seed), shape, path))


def unstacked(array: Array, axis: int, count: int, name: str = "t") -> list[PlannedLeaf]:
    return [planned(f"{name}{i}", Part(array, axis, i, i + 1, drop=True)) for i in range(count)]


def done(
    sink: Sink, leaves: list[PlannedLeaf], limit: int, verify: str = "full", **options: Any
) -> dict[str, Record]:
    """The records of one job."""
    told: list[int] = []
    job = Job(tuple(leaves))
    records = do_job(job, sink, Settings(limit, verify, **options), told.append)
    assert sum(told) == job.nbytes
    return {record["target"]: record for record in records}


def sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


# What is written together.


def test_leaves_of_one_large_source_are_one_job_and_the_largest_comes_first():
    large, larger, small = memory("l", 2, 20_000), memory("m", 3, 20_000), memory("s", 2, 3)
    leaves = [
        *unstacked(large, 0, 2, "l"),
        *unstacked(small, 0, 2, "s"),
        *unstacked(larger, 0, 3, "m"),
    ]
    found = [
        [leaf.target.removeprefix("params/") for leaf in job.leaves] for job in make_jobs(leaves)
    ]
    assert found[:2] == [["m0", "m1", "m2"], ["l0", "l1"]]
    assert sorted(found[2:]) == [["s0"], ["s1"]]


def test_groups_that_a_later_leaf_joins_become_one():
    sources = [memory(f"s{i}", 20_000, seed=i) for i in range(4)]
    leaves = [planned(f"t{i}", s) for i, s in enumerate(sources)]
    leaves.append(planned("a", Joined((sources[0], sources[1]), 0)))
    leaves.append(planned("b", Joined((sources[2], sources[1]), 0)))
    leaves.append(planned("c", Part(sources[0], 0, 0, 10)))
    groups = [
        {leaf.target.removeprefix("params/") for leaf in job.leaves} for job in make_jobs(leaves)
    ]
    assert groups == [{"t0", "t1", "t2", "a", "b", "c"}, {"t3"}]


@given(data=st.data())
@FEW
def test_every_leaf_is_in_one_job_with_all_that_share_its_sources(data: st.DataObject):
    sources = [memory(f"s{i}", 20_000) for i in range(6)]
    picks = data.draw(
        st.lists(st.lists(st.sampled_from(range(6)), min_size=1, max_size=2), max_size=9)
    )
    leaves = [
        planned(f"t{i}", Joined(tuple(sources[k] for k in pick), 0)) for i, pick in enumerate(picks)
    ]
    jobs = make_jobs(leaves)
    assert sorted(leaf.target for job in jobs for leaf in job.leaves) == sorted(
        leaf.target for leaf in leaves
    )
    assert [job.nbytes for job in jobs] == sorted((job.nbytes for job in jobs), reverse=True)
    used = [{id(s) for leaf in job.leaves for s in leaf.array.leaves()} for job in jobs]
    assert sum(map(len, used)) == len(set().union(*used))


def test_leaves_of_two_checkpoints_with_one_path_are_not_mixed_up(tmp_path: Path):
    one, other = memory("same", 20_000), memory("same", 20_000, seed=1)
    found = done(OrbaxSink(LocalStore(tmp_path)), [planned("a", one), planned("b", other)], 1 << 20)
    assert found["params/a"]["sha256"] == sha256(one.leaf.read())
    assert found["params/b"]["sha256"] == sha256(other.leaf.read())
    assert len(make_jobs([planned("a", one), planned("b", other)])) == 2


@given(sizes=st.lists(st.integers(0, 50), max_size=20), processes=st.integers(1, 5))
@FEW
def test_processes_share_the_jobs(sizes: list[int], processes: int):
    jobs = make_jobs([planned(f"t{i}", memory(f"s{i}", size)) for i, size in enumerate(sizes)])
    shares = [share(jobs, index, processes) for index in range(processes)]
    taken = [id(job) for part in shares for job in part]
    assert sorted(taken) == sorted(map(id, jobs))
    loads = [sum(job.nbytes for job in part) for part in shares]
    assert max(loads) - min(loads) <= max([job.nbytes for job in jobs], default=0) + len(jobs)


# What a job writes.


@st.composite
def planned_leaves(draw: st.DrawFn) -> tuple[list[PlannedLeaf], list[np.ndarray]]:
    """Leaves cut from one another's sources, and their values."""
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3))
    leaf = draw(memory_leaves(shape, draw(st.sampled_from(DTYPES))))
    array, values = Source(leaf), leaf.values
    axis = draw(st.integers(0, len(shape) - 1))
    order = tuple(draw(st.permutations(range(len(shape)))))
    found: list[tuple[Array, np.ndarray]] = [
        (array, values),
        (Transposed(array, order), np.asarray(values.transpose(order), order="C")),
        (Joined((array, array), axis), np.concatenate([values, values], axis)),
        (Joined((array, array), axis, new_axis=True), np.stack([values, values], axis)),
        (Split(array, axis, (1, shape[axis])), np.expand_dims(values, axis)),
        *(
            (Part(array, axis, i, i + 1, drop=True), values.take(i, axis).copy())
            for i in range(shape[axis])
        ),
    ]
    chosen = draw(st.lists(st.sampled_from(range(len(found))), min_size=1, max_size=4, unique=True))
    leaves = [planned(f"t{i}", found[k][0]) for i, k in enumerate(chosen)]
    return leaves, [found[k][1] for k in chosen]


@pytest.mark.parametrize("form", ["orbax", "safetensors"])
@given(case=planned_leaves(), limit=st.integers(1, 300), verify=st.sampled_from(["full", "none"]))
@FEW
def test_the_digest_is_that_of_the_values_whatever_the_tiles(
    form: str, case: tuple[list[PlannedLeaf], list[np.ndarray]], limit: int, verify: str
):
    leaves, values = case
    if form == "safetensors" and any(v.dtype.name == "int4" for v in values):
        return
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(Path(folder))
        sink: Sink = OrbaxSink(store) if form == "orbax" else SafetensorsSink(store, leaves)
        records = done(sink, leaves, limit, verify)
        for leaf, wanted in zip(leaves, values, strict=True):
            record = records[leaf.target]
            found = sink.stored(leaf).read()
            assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
            assert found.tobytes() == wanted.tobytes()
            assert record["verified"] == (verify == "full")
            if verify == "full":
                assert record["sha256"] == sha256(wanted)
            else:
                assert record["sha256"] in (None, sha256(wanted))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
@pytest.mark.parametrize("form", ["orbax", "safetensors"])
def test_leaves_of_one_value_or_none(shape: tuple[int, ...], form: str, tmp_path: Path):
    values = values_of(shape)
    leaves = [planned("t", Source(MemoryLeaf(values, shape)))]
    store = LocalStore(tmp_path)
    sink: Sink = OrbaxSink(store) if form == "orbax" else SafetensorsSink(store, leaves)
    assert done(sink, leaves, 100)["params/t"]["sha256"] == sha256(values)
    assert sink.stored(leaves[0]).read().tobytes() == values.tobytes()


def test_a_record_describes_the_leaf(tmp_path: Path):
    values = np.array([[1, np.nan, np.inf], [2, 3, -np.inf]], np.float32)
    array = Cast(Source(MemoryLeaf(values, (1, 3), "x")), np.dtype("bfloat16"))
    found = done(OrbaxSink(LocalStore(tmp_path)), [planned("t", array, "cast bfloat16")], 100)
    assert found == {
        "params/t": {
            "target": "params/t",
            "sources": ["x"],
            "operation": "cast bfloat16",
            "shape": [2, 3],
            "dtype": "bfloat16",
            "sha256": sha256(values.astype("bfloat16")),
            "nonfinite": 3,
            "verified": True,
        }
    }


class Faulty(OrbaxSink):
    """A sink on a disk that turns one bit."""

    def write(self, leaf: PlannedLeaf, tile: Tile, values: np.ndarray) -> None:
        wrong = values.copy()
        wrong.reshape(-1).view(np.uint8)[0] ^= 1
        super().write(leaf, tile, wrong)


def test_what_reads_back_otherwise_is_found(tmp_path: Path):
    leaves = [planned("t", memory("x", 4, 5))]
    with pytest.raises(VerificationError, match="params/t: what was read back differs"):
        done(Faulty(LocalStore(tmp_path)), leaves, 100)
    assert not done(Faulty(LocalStore(tmp_path)), leaves, 100, "none")["params/t"]["verified"]


# How sources are read.


class CountingStore(LocalStore):
    """A store that counts the bytes read of each file."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.counts: dict[str, int] = {}

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        data = super().read(key, start, stop)
        self.counts[key] = self.counts.get(key, 0) + len(data)
        return data

    def child(self, prefix: str) -> "CountingStore":
        child = CountingStore(self.root / prefix)
        child.counts = self.counts
        return child


def counted(place: Path) -> tuple[ZarrLeaf, CountingStore]:
    store = CountingStore(place.parent)
    return ZarrLeaf.open(place.name, store, place.name), store


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("limit", [1 << 16, 1 << 22])
def test_layers_are_cut_from_a_large_chunk_in_one_pass(axis: int, limit: int, tmp_path: Path):
    shape = (12, 16, 20)
    values = values_of((*shape, 64))  # 983 kB, so that the smaller limit makes a stream of it
    write_zarr(tmp_path / "leaf", values, values.shape)
    leaf, store = counted(tmp_path / "leaf")
    (job,) = make_jobs(unstacked(Source(leaf), axis, shape[axis]))
    sink = OrbaxSink(LocalStore(tmp_path / "out"))
    records = done(sink, list(job.leaves), limit)
    assert store.counts["0.0.0.0"] == (tmp_path / "leaf" / "0.0.0.0").stat().st_size
    for i in range(shape[axis]):
        assert records[f"params/t{i}"]["sha256"] == sha256(values.take(i, axis))


@pytest.mark.parametrize(
    "make",
    [
        lambda array: [planned("t", Transposed(array, (1, 0)))],
        lambda array: [
            planned("gate", Part(array, 1, 0, 256)),
            planned("up", Part(array, 1, 256, 512)),
        ],
        lambda array: [planned("t", Cast(array, np.dtype(np.float64)))],
        lambda array: [planned("t", array), planned("u", Transposed(array, (1, 0)))],
    ],
)
@pytest.mark.parametrize("chunks", [(512, 512), (128, 512), (128, 128)])
def test_a_chunk_is_read_once(make: Any, chunks: tuple[int, int], tmp_path: Path):
    values = values_of((512, 512))
    write_zarr(tmp_path / "leaf", values, chunks)
    leaf, store = counted(tmp_path / "leaf")
    leaves = make(Source(leaf))
    done(OrbaxSink(LocalStore(tmp_path / "out")), leaves, 1 << 17, move_chunks=False)
    for name, count in store.counts.items():
        if name != ".zarray":
            assert count == (tmp_path / "leaf" / name).stat().st_size, name


def test_stacked_sources_are_not_held_all_at_once(tmp_path: Path):
    import tracemalloc

    count, limit = 24, 1 << 20
    sources: list[Array] = []
    for i in range(count):
        write_zarr(tmp_path / f"s{i}", np.full((512, 512), i, np.float32), (512, 512))  # 1 MiB
        sources.append(Source(open_zarr(tmp_path / f"s{i}")))
    leaf = planned("t", Joined(tuple(sources), 0, new_axis=True))
    tracemalloc.start()
    done(OrbaxSink(LocalStore(tmp_path / "out")), [leaf], limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * limit  # what `execute` gives a worker


def test_cursors_are_kept_as_long_as_there_is_room():
    leaves = [MemoryLeaf(values_of((100,), seed=i), (100,), f"x{i}") for i in range(4)]
    small = MemoryLeaf(values_of(()), (), "small")
    cache = ReaderCache(400)
    first = [cache(leaves[0]), cache(small), cache(leaves[1])]
    assert cache(leaves[1]) is first[2]
    assert cache(leaves[0]) is not first[0]  # 804 bytes were more than twice the limit
    cache = ReaderCache(1000)
    kept = [cache(leaf) for leaf in leaves]
    assert [cache(leaf) for leaf in leaves] == kept
    tiny = ReaderCache(1)
    assert tiny(leaves[0]) is tiny(leaves[0])


@given(data=st.data(), shape=shapes, limit=st.integers(1, 500))
@FEW
def test_a_band_of_tiles_stays_within_the_limit_where_a_row_does(
    data: st.DataObject, shape: tuple, limit: int
):
    leaf = data.draw(memory_leaves(shape))
    tile = tile_shape(Source(leaf), limit)
    first = next((axis for axis, size in enumerate(tile) if size != 1), None)
    if first is not None:
        assert 4 * tile[first] * int(np.prod(shape[first + 1 :])) <= max(limit, 4)


# Chunks that move as they are.


class Noting(OrbaxSink):
    """A sink that notes the tiles that are computed."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.computed: list[str] = []

    def write(self, leaf: PlannedLeaf, tile: Tile, values: np.ndarray) -> None:
        self.computed.append(leaf.target)
        super().write(leaf, tile, values)


@pytest.mark.parametrize("verify", ["full", "none"])
@pytest.mark.parametrize("limit", [64, 1 << 20])
def test_unchanged_chunks_move(verify: str, limit: int, tmp_path: Path):
    values = values_of((20, 6))
    values[3, 3] = np.nan
    source = zarr_leaf(tmp_path / "in", values, (10, 6))
    files = [(tmp_path / "in" / name).read_bytes() for name in ("0.0", "1.0")]
    sink = Noting(LocalStore(tmp_path / "out"))
    record = done(sink, [planned("a/b", Source(source))], limit, verify)["params/a/b"]
    assert sink.computed == []
    place = tmp_path / "out" / "params" / "a.b"
    assert [(place / name).read_bytes() for name in ("0.0", "1.0")] == files
    assert record["stored_sha256"] == hashlib.sha256(b"".join(files)).hexdigest()
    assert record["operation"] == "rename, chunks moved undecoded"
    if verify == "full":
        assert (record["sha256"], record["nonfinite"], record["verified"]) == (
            sha256(values),
            1,
            True,
        )
    else:
        assert (record["sha256"], record["nonfinite"], record["verified"]) == (
            None,
            "not checked",
            False,
        )
    assert open_zarr(place).read().tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"compressor": {"id": "gzip", "level": 1}}, (20, 6)),
        ({"compressor": None}, (20, 6)),
        ({"dtype": ">f4"}, (20, 6)),
        ({"dimension_separator": "/"}, (20, 6)),
        ({"order": "F"}, (20, 6)),
        ({"dtype": "<f4", "fill_value": 0.0}, (20, 6)),
        ({}, (19, 6)),
    ],
)
def test_other_chunks_are_computed(options: dict[str, Any], shape: tuple, tmp_path: Path):
    values = values_of((20, 6))
    write_zarr(tmp_path / "in", values, (10, 6), **options)
    source = open_zarr(tmp_path / "in", shape=shape)
    sink = Noting(LocalStore(tmp_path / "out"))
    record = done(sink, [planned("a", Source(source))], 1 << 20)["params/a"]
    assert sink.computed
    assert "stored_sha256" not in record
    assert record["sha256"] == sha256(values[: shape[0]])


def test_chunks_move_only_if_they_may(tmp_path: Path):
    source = zarr_leaf(tmp_path / "in", values_of((20, 6)), (10, 6))
    sink = Noting(LocalStore(tmp_path / "out"))
    done(sink, [planned("a", Source(source))], 1 << 20, move_chunks=False)
    assert sink.computed == ["params/a"] * 2


@pytest.mark.parametrize("verify", ["full", "none"])
def test_a_damaged_chunk_does_not_move(verify: str, tmp_path: Path):
    source = zarr_leaf(tmp_path / "in", values_of((20, 6)), (10, 6))
    file = tmp_path / "in" / "1.0"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"in: chunk 1\.0 of .* is damaged"):
        done(OrbaxSink(LocalStore(tmp_path / "out")), [planned("a", Source(source))], 100, verify)


def test_a_moved_chunk_that_changed_on_its_way_is_found(tmp_path: Path):
    values = values_of((20, 6))
    source = zarr_leaf(tmp_path / "in", values, (20, 6))
    other = zarr_leaf(tmp_path / "other", values * 2, (20, 6))

    class Swapping(OrbaxSink):
        def stored(self, leaf: PlannedLeaf) -> ZarrLeaf:
            place = tmp_path / "out" / "params" / "a"
            (place / "0.0").write_bytes((tmp_path / "other" / "0.0").read_bytes())
            return super().stored(leaf)

    assert other.read().tobytes() != values.tobytes()
    with pytest.raises(VerificationError, match=r"params/a: the chunks in .* differ"):
        done(Swapping(LocalStore(tmp_path / "out")), [planned("a", Source(source))], 1 << 20)
