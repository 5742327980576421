"""Batches of prepared data beside a step of 5 ms, and beside the same arrays without reading ahead.

python -m benchmarks.batches [--events 20000000] [--users 138000] [--items 27000] [--steps 300]

Synthetic interactions are written in shards, as by `prepare`, and read again. A step is a sleep of
5 ms, like a host that waits for its device. The ways of making batches take turns, each for `steps`
batches; medians count, of the time a batch takes and of the share that a step waits for it.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from efficientids_flax.data import Batches, Reading, Rows, read_data
from efficientids_flax.digests import catalogue_digest
from efficientids_flax.prepared_format import (
    CATALOGUE,
    FORMAT,
    ITEMS,
    MANIFEST,
    VERSION,
    shard_name,
)
from efficientids_flax.train.batches import ShuffledBatches

STEP = 5e-3  # seconds
ROUNDS = 5
LENGTH, SHARDS = 50, 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in (
        ("events", 20_000_000), ("users", 138_000), ("items", 27_000), ("steps", 300),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batch-size", type=int, default=256)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        write(Path(place), given.events, given.users, given.items)
        start = time.perf_counter()
        found = read_data(place, Reading(length=LENGTH))
        opened = time.perf_counter() - start
        rows, packed = found.splits["train"], None
        assert isinstance(rows, Rows)
        start = time.perf_counter()
        packed = read_data(place, Reading(length=LENGTH, pack=True)).splits["train"]
        both = time.perf_counter() - start
    assert isinstance(packed, Rows)
    print(f"{given.events} events of {given.users} users: opened in {opened:.1f} s,"
          f" with packing {both:.1f} s")  # fmt: skip
    print(*packed.notes, sep="\n")
    size = given.batch_size
    epoch = rows.take(np.arange(min(rows.num_rows, 100_000)))
    ways: dict[str, Callable[[], Iterator[Any]]] = {
        "read ahead": lambda: iter(Batches(rows, size)),
        "packed, read ahead": lambda: iter(Batches(packed, size)),
        "not ahead": lambda: iter(Batches(rows, size, ahead=0)),
        "arrays, not ahead": lambda: iter(ShuffledBatches(epoch, size)),
    }
    alone = {name: [] for name in ways}
    waited = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, make in ways.items():
            alone[name].append(seconds(make(), given.steps, 0.0)[0])
            waited[name].append(seconds(make(), given.steps, STEP)[1])
    print(f"batches of {size} x {LENGTH}; a step of {STEP * 1e3:.0f} ms, {given.steps} of them")
    print("way                  ms a batch   times a step   share of waiting")
    for name in ways:
        batch, share = statistics.median(alone[name]), statistics.median(waited[name])
        print(f"{name:20s} {batch * 1e3:10.2f} {STEP / batch:14.1f} {share:18.1%}")


def seconds(batches: Iterator[Any], steps: int, step: float) -> tuple[float, float]:
    """(Seconds per step, share of them spent waiting for a batch), after a warm-up."""
    for _ in range(8):
        next(batches)
    waited, begin = 0.0, time.perf_counter()
    for _ in range(steps):
        start = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - start
        if step:
            time.sleep(step)
    total = time.perf_counter() - begin
    if callable(end := getattr(batches, "close", None)):
        end()
    return total / steps, waited / total


def write(root: Path, events: int, users: int, items: int) -> None:
    """Write a prepared directory of synthetic interactions, with each user's last two held out."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    counts = 3 + rng.multinomial(events - 3 * users, rng.dirichlet(np.full(users, 0.7)))
    bounds = np.linspace(0, users, SHARDS + 1).astype(int)
    for shard in range(SHARDS):
        own = np.arange(bounds[shard], bounds[shard + 1])
        user = np.repeat(own, counts[own]).astype(np.int32)
        split = np.zeros(len(user), np.int8)
        ends = np.cumsum(counts[own])
        split[ends - 2], split[ends - 1] = 1, 2
        item = rng.integers(0, items, len(user)).astype(np.int32)
        table = pa.table({"user": user, "item": item, "split": split})
        parquet.write_table(table, root / shard_name(shard, SHARDS))
    ids = [str(item) for item in range(items)]
    number = np.arange(items, dtype=np.int32)
    parquet.write_table(
        pa.table({"item": number, "id": ids, "count": number, "cold": number < 0}),
        root / ITEMS,
    )
    manifest = {
        "format": FORMAT, "version": VERSION, "counts": {"interactions": events},
        "digests": {CATALOGUE: catalogue_digest(ids)},
    }  # fmt: skip
    (root / MANIFEST).write_text(json.dumps(manifest))


if __name__ == "__main__":
    main()
