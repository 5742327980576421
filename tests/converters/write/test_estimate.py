"""How large an output is expected to be."""

from pathlib import Path

import numpy as np
import pytest

from converters.arrays.lazy import Array, Source
from converters.arrays.structure import Part
from converters.arrays.values import Cast
from converters.plan.leaves import Plan, PlannedLeaf
from converters.write.estimate import estimated_size
from tests.leaves import open_zarr, values_of, write_zarr


def plan(*arrays: Array) -> Plan:
    leaves = tuple(PlannedLeaf(f"params/{i}", array, "") for i, array in enumerate(arrays))
    return Plan("", None, "", "generic", leaves, (), {}, {}, (), ())


def files(place: Path) -> int:
    return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())


def test_an_output_compresses_as_its_source_does(tmp_path: Path):
    write_zarr(tmp_path / "a", np.zeros((100, 1000), np.float32), (100, 1000))
    write_zarr(tmp_path / "b", values_of((100, 1000)), (100, 1000))
    one, other = Source(open_zarr(tmp_path / "a")), Source(open_zarr(tmp_path / "b"))
    stored = files(tmp_path)
    assert estimated_size(plan(one, other), str(tmp_path)) == pytest.approx(stored, rel=1e-3)
    halved = plan(*(Cast(array, np.dtype("bfloat16")) for array in (one, other)))
    assert estimated_size(halved, str(tmp_path)) == pytest.approx(stored / 2, rel=1e-3)
    parts = [Part(array, 0, i, i + 1) for array in (one, other) for i in range(100)]
    assert estimated_size(plan(*parts), str(tmp_path)) == pytest.approx(stored, rel=1e-3)


def test_an_output_is_never_larger_than_its_values(tmp_path: Path):
    write_zarr(tmp_path / "a", values_of((10,)), (1,))
    (tmp_path / "summaries").write_bytes(bytes(10_000))
    assert estimated_size(plan(Source(open_zarr(tmp_path / "a"))), str(tmp_path)) == 40


def test_a_source_that_is_one_file_or_elsewhere(tmp_path: Path):
    write_zarr(tmp_path / "a", values_of((10,)), (10,))
    leaf = plan(Source(open_zarr(tmp_path / "a")))
    (tmp_path / "file").write_bytes(bytes(20))
    assert estimated_size(leaf, str(tmp_path / "file")) == 20
    assert estimated_size(leaf, "ftp://nowhere/at/all") == 40


def test_an_empty_plan(tmp_path: Path):
    assert estimated_size(plan(), str(tmp_path)) == 0
