"""The second softmax, forward and backward, beside the least that it costs.

python -m benchmarks.head [--items 3000 --items 100000 ...] [--rounds 5]

All in one process, in turns. The limit is the time of the same arithmetic in products of equal
clusters (logits, and both of their gradients), in proportion to the numbers that are multiplied,
plus one pass `table * 0.9` over the table, which its dense gradient costs at least. Prints medians,
their ratio, temporaries beyond the gradients, and how many members the largest cluster has.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.clusterings import SIZES, Sizes, clustering
from efficientids_flax.core.head.second import Entropy, Labels, member_losses

CLUSTERS = {3_000: 55, 100_000: 320, 1_000_000: 1_000}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print("items width positions sizes        largest   ours ms   limit ms   ratio   temp MB")
    for items in given.items or CLUSTERS:
        for width in (64, 256):
            for positions in (256, 2048):
                for sizes in SIZES:
                    print(row(items, width, positions, sizes, given.rounds), flush=True)


def row(items: int, width: int, positions: int, sizes: Sizes, rounds: int) -> str:
    """One line of the table."""
    clusters = CLUSTERS.get(items) or round(items**0.5)
    tables = clustering(items, clusters, sizes)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, items, positions)
    where = Labels(jnp.asarray(tables.cluster_of[labels]), jnp.asarray(labels))
    query = jnp.asarray(rng.normal(size=(positions, width)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(items, width)) * 0.1, jnp.float32)
    weights = jnp.full(positions, 1 / positions)

    def loss(query: jax.Array, table: jax.Array) -> Any:
        return member_losses(Entropy(), tables, query, table, where, weights).total

    ours = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(query, table).compile()
    members, asked = -(-items // clusters), -(-positions // clusters)
    rows = jnp.ones((clusters, members, width))
    some = jnp.ones((clusters, asked, width))

    def products(rows: jax.Array, some: jax.Array) -> Any:
        logits = jnp.einsum("kmw,kpw->kmp", rows, some)
        return jnp.einsum("kmp,kmw->kpw", logits, rows), jnp.einsum("kmp,kpw->kmw", logits, some)

    multiply = jax.jit(products)
    one_pass = jax.jit(lambda table: table * 0.9)
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(query, table),
        "products": lambda: multiply(rows, some),
        "pass": lambda: one_pass(table),
    }
    times = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)
    counts = np.bincount(tables.cluster_of)
    share = counts[tables.cluster_of[labels]].sum() / (clusters * members * asked)
    limits = [a * share + b for a, b in zip(times["products"], times["pass"], strict=True)]
    took, limit = statistics.median(times["ours"][1:]), statistics.median(limits[1:])
    analysis = ours.memory_analysis()
    temporary = 0 if analysis is None else analysis.temp_size_in_bytes / 2**20
    return (
        f"{items:8d} {width:4d} {positions:5d} {sizes:12s} {counts.max():7d} {took * 1e3:9.1f} "
        f"{limit * 1e3:9.1f} {took / limit:8.2f} {temporary:8.1f}"
    )


if __name__ == "__main__":
    main()
