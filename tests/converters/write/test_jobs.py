"""Jobs: which leaves are written together, and what is recorded about them."""

import tempfile
from pathlib import Path

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.arrays.lazy import Array, Source
from converters.arrays.structure import Joined, Part, Split, Transposed
from converters.arrays.values import Cast
from converters.errors import VerificationError
from converters.plan.leaves import PlannedLeaf
from converters.stores.local import LocalStore
from converters.write.formats.orbax import OrbaxSink
from converters.write.formats.safetensors import SafetensorsSink
from converters.write.formats.sink import Sink, Tile
from converters.write.jobs import (
    make_jobs,
    share,
)
from tests.converters.write.job_cases import done, memory, planned, sha256, unstacked
from tests.leaves import (
    DTYPES,
    FEW,
    MemoryLeaf,
    memory_leaves,
    values_of,
)

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
    assert found[2:] == [["s0", "s1"]]


def test_small_leaves_share_jobs():
    leaves = [planned(f"t{i}", memory(f"s{i}", 10)) for i in range(150)]
    found = make_jobs([*leaves, planned("l", memory("l", 20_000))])
    assert [len(job.leaves) for job in found] == [1, 64, 64, 22]
    assert [leaf for job in found[1:] for leaf in job.leaves] == leaves


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
    """Leaves computed from shared sources, and their values."""
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
    """A sink on a disk that flips one bit."""

    def write(self, leaf: PlannedLeaf, tile: Tile, values: np.ndarray) -> None:
        wrong = values.copy()
        wrong.reshape(-1).view(np.uint8)[0] ^= 1
        super().write(leaf, tile, wrong)


def test_what_reads_back_otherwise_is_found(tmp_path: Path):
    leaves = [planned("t", memory("x", 4, 5))]
    with pytest.raises(VerificationError, match="params/t: what was read back differs"):
        done(Faulty(LocalStore(tmp_path)), leaves, 100)
    assert not done(Faulty(LocalStore(tmp_path)), leaves, 100, "none")["params/t"]["verified"]
