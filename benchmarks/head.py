"""Compares the second softmax, forward and backward, with a lower limit of its cost.

python -m benchmarks.head [--items 3000 --items 100000 ...] [--rounds 5] [--full | --tiny]

Everything runs in one process, in turns. The limit is the time of the same arithmetic as products
of equal clusters (logits, and both of their gradients), scaled by the number of multiplications,
plus one pass `table * 0.9` over the table, the least that its dense gradient costs. Prints medians,
their ratio, temporary memory beyond the gradients, and the size of the largest cluster.

With --full: a softmax over all items in chunks, compared with its four products in chunks of the
same size (logits, recomputed logits, and both gradients) and the pass over the table.

With --tiny: the second softmax of tiny catalogues in both ways, cluster by cluster and by products
with all items. Prints microseconds (median and minimum), which way is chosen, the ratio of the
first to the second, and the seconds to trace and compile each.
"""

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.clusterings import SIZES, Sizes, clustering
from benchmarks.turns import turns
from efficientids_flax.core.head.full_softmax import (
    LOGITS_AT_ONCE,
    Classes,
    chunked_cross_entropy,
)
from efficientids_flax.core.head.second import Entropy, Labels, masked, member_losses

CLUSTERS = {3_000: 55, 100_000: 320, 1_000_000: 1_000}
TINY, FEW = (60, 200, 400, 1_000, 3_000), (16, 64, 256, 2048)  # items, positions
TINY_ROUNDS = 20  # rounds per round of `--rounds`, as each is so short


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    if given.tiny:
        print(
            "items width positions products by cluster (least) all items (least) chosen  ratio"
            "  compiled"
        )
        for items in given.items or TINY:
            for width in (64, 256):
                for positions in FEW:
                    print(tiny_row(items, width, positions, given.rounds), flush=True)
        return
    if given.full:
        print("items width positions   ours ms   limit ms   ratio   temp MB")
        for items in given.items or CLUSTERS:
            for width in (64, 256):
                print(full_row(items, width, 2048, given.rounds), flush=True)
        return
    print("items width positions sizes        largest   ours ms   limit ms   ratio   temp MB")
    for items in given.items or CLUSTERS:
        for width in (64, 256):
            for positions in (256, 2048):
                for sizes in SIZES:
                    print(row(items, width, positions, sizes, given.rounds), flush=True)


def problem(items: int, width: int, positions: int) -> tuple[np.ndarray, jax.Array, jax.Array]:
    """Synthetic (labels [positions], queries [positions, width], item table [items, width])."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, items, positions)
    query = jnp.asarray(rng.normal(size=(positions, width)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(items, width)) * 0.1, jnp.float32)
    return labels, query, table


def row(items: int, width: int, positions: int, sizes: Sizes, rounds: int) -> str:
    """One line of the table."""
    clusters = CLUSTERS.get(items) or round(items**0.5)
    tables = clustering(items, clusters, sizes)
    labels, query, table = problem(items, width, positions)
    where = Labels(jnp.asarray(tables.cluster_of[labels]), jnp.asarray(labels))
    weights = jnp.full(positions, 1 / positions)

    def loss(query: jax.Array, table: jax.Array, where: Labels) -> Any:
        return member_losses(Entropy(), tables, query, table, where, weights).total

    ours = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(query, table, where).compile()
    members, asked = -(-items // clusters), -(-positions // clusters)
    rows = jnp.ones((clusters, members, width))
    some = jnp.ones((clusters, asked, width))

    def products(rows: jax.Array, some: jax.Array) -> Any:
        logits = jnp.einsum("kmw,kpw->kmp", rows, some)
        return jnp.einsum("kmp,kmw->kpw", logits, rows), jnp.einsum("kmp,kpw->kmw", logits, some)

    multiply = jax.jit(products)
    one_pass = jax.jit(lambda table: table * 0.9)
    times = turns(
        {
            "ours": lambda: ours(query, table, where),
            "products": lambda: multiply(rows, some),
            "pass": lambda: one_pass(table),
        },
        rounds,
    )
    counts = np.bincount(tables.cluster_of)
    share = counts[tables.cluster_of[labels]].sum() / (clusters * members * asked)
    limits = [a * share + b for a, b in zip(times["products"], times["pass"], strict=True)]
    return f"{items:8d} {width:4d} {positions:5d} {sizes:12s} {counts.max():7d} " + figures(
        times["ours"], limits, ours
    )


def full_row(items: int, width: int, positions: int, rounds: int) -> str:
    """One line of the table with --full."""
    labels, query, table = problem(items, width, positions)
    classes = jnp.asarray(labels)

    def loss(query: jax.Array, table: jax.Array) -> Any:
        found: Any = chunked_cross_entropy(Entropy(), Classes(query, table, None, classes))
        return jnp.mean(found[0])

    ours = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(query, table).compile()
    size = min(items, LOGITS_AT_ONCE // positions)
    chunks = items // size

    def products(query: jax.Array, table: jax.Array) -> Any:
        def step(number: Any, carry: Any) -> Any:
            rows = jax.lax.dynamic_slice_in_dim(table, number * size, size)
            logits = jnp.einsum("mw,pw->mp", rows, query)
            again = jnp.einsum("mw,pw->mp", rows, query + carry[0][:1])
            logits, again = jax.lax.optimization_barrier((logits, again))
            of_rows = jnp.einsum("mp,pw->mw", logits, query)
            made = jax.lax.dynamic_update_slice_in_dim(carry[1], of_rows, number * size, 0)
            return carry[0] + jnp.einsum("mp,mw->pw", again, rows), made

        return jax.lax.fori_loop(0, chunks, step, (query, jnp.zeros_like(table)))

    multiply = jax.jit(products)
    times = turns(
        {"ours": lambda: ours(query, table), "products": lambda: multiply(query, table)}, rounds
    )
    line = figures(times["ours"], times["products"], ours)
    return f"{items:8d} {width:4d} {positions:5d} " + line


def tiny_row(items: int, width: int, positions: int, rounds: int) -> str:
    """One line of the table with --tiny."""
    tables = clustering(items, round(items**0.5), "log-normal")
    labels, query, table = problem(items, width, positions)
    where = Labels(jnp.asarray(tables.cluster_of[labels]), jnp.asarray(labels))
    weights = jnp.full(positions, 1 / positions)

    def loss(query: jax.Array, table: jax.Array) -> Any:
        return member_losses(Entropy(), tables, query, table, where, weights).total

    known, ways, compiled = masked.FASTER, {}, []
    for name, faster in (("by cluster", ()), ("all items", ((width, items * positions),))):
        masked.FASTER = faster
        start = time.perf_counter()
        ways[name] = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(query, table).compile()
        compiled.append(time.perf_counter() - start)
    masked.FASTER = known
    times = turns(
        {name: lambda run=run: run(query, table) for name, run in ways.items()},
        rounds * TINY_ROUNDS,
    )
    medians = [statistics.median(one) * 1e6 for one in times.values()]
    least = [min(one) * 1e6 for one in times.values()]
    chosen = masked.is_faster(width, positions * items)
    return (
        f"{items:5d} {width:5d} {positions:9d} {positions * items:8d} {medians[0]:10.0f}"
        f" {least[0]:7.0f} {medians[1]:9.0f} {least[1]:7.0f} {'all' if chosen else 'by':>6s}"
        f" {medians[0] / medians[1]:6.2f}  {compiled[0]:.1f} {compiled[1]:.1f}"
    )


def figures(ours: list[float], limits: list[float], compiled: Any) -> str:
    """Medians, their ratio, and the temporary memory of the compiled program."""
    took, limit = statistics.median(ours), statistics.median(limits)
    analysis = compiled.memory_analysis()
    temporary = 0 if analysis is None else analysis.temp_size_in_bytes / 2**20
    return f"{took * 1e3:9.1f} {limit * 1e3:9.1f} {took / limit:8.2f} {temporary:8.1f}"


if __name__ == "__main__":
    main()
