"""Planned leaves for tests of jobs, and the results of a job."""

import hashlib
from typing import Any

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np

from converters.arrays.lazy import Array, Source
from converters.arrays.structure import Part
from converters.plan.leaves import PlannedLeaf
from converters.write.formats.sink import Sink
from converters.write.jobs import (
    Job,
    Record,
    Settings,
    do_job,
)
from tests.leaves import (
    MemoryLeaf,
    values_of,
)


def planned(target: str, array: Array, operation: str = "rename") -> PlannedLeaf:
    return PlannedLeaf(f"params/{target}", array, operation)


def memory(path: str, *shape: int, seed: int = 0) -> Source:
    return Source(MemoryLeaf(values_of(shape, seed=seed), shape, path))


def unstacked(array: Array, axis: int, count: int, name: str = "t") -> list[PlannedLeaf]:
    return [planned(f"{name}{i}", Part(array, axis, i, i + 1, drop=True)) for i in range(count)]


def done(
    sink: Sink, leaves: list[PlannedLeaf], limit: int, verify: str = "full", **options: Any
) -> dict[str, Record]:
    """Do one job, and return its records."""
    told: list[int] = []
    job = Job(tuple(leaves))
    records = do_job(job, sink, Settings(limit, verify, **options), told.append)
    assert sum(told) == job.nbytes
    return {record["target"]: record for record in records}


def sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()
