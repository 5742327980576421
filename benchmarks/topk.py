"""Compares exact top-10 of a large catalogue with plain JAX and, if installed, faiss.

python -m benchmarks.topk [--items 1000000] [--width 64] [--rounds 7]

Everything runs in one process, in turns; medians count. The structured table is a mixture: items
lie around the centres of their clusters, which form the cluster table, and queries lie around
items, like those of a trained model. Without faiss (`pip install faiss-cpu`) its columns are
missing. IVF probes as many lists as it needs to find all that Flat finds for these queries. A beam
searches four clusters; printed are its time, and its recall of the best ten for each kind of score.
"""

import argparse
import importlib
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.clusterings import clustering
from benchmarks.turns import turns
from efficientids_flax.core.head.search import Kind, build_index, search

K = 10
BEAM = 4  # clusters of an approximate search
PAUSE = 0.05  # seconds until idle threads of the previous way, such as faiss', stop spinning
NOISE = 0.25  # of items around the centres of their clusters


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in (("items", 1_000_000), ("width", 64), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    print(f"{given.items} items of width {given.width}, ms")
    print(
        f"table        queries    scores corrected log_probs | beams of {BEAM} (recall) | plain"
        " JAX, faiss"
    )
    for structured in (True, False):
        measured(given.items, given.width, structured, given.rounds)


def measured(items: int, width: int, structured: bool, rounds: int) -> None:
    """Print the lines of one table."""
    rng = np.random.default_rng(0)
    count = round(items**0.5)
    tables = clustering(items, count, "log-normal")
    centres = rng.normal(size=(count, width)).astype(np.float32)
    table = rng.normal(size=(items, width)).astype(np.float32)
    if structured:
        table = centres[tables.cluster_of] + NOISE * table
    items_on, clusters = jnp.asarray(table), jnp.asarray(centres)
    index = jax.jit(lambda items, clusters: build_index(items, clusters, tables))(
        items_on, clusters
    )
    for asked in (1, 64):
        near = table[rng.integers(0, items, asked)] + 0.5 * rng.normal(size=(asked, width))
        query = jnp.asarray(near * (3 * width**-0.5), jnp.float32)
        ways = {kind: partial(ready, searching(kind), index, query) for kind in get_args(Kind)}
        ways |= {
            f"beam {kind}": partial(ready, searching(kind, BEAM), index, query)
            for kind in get_args(Kind)
        }
        recalls = {
            kind: recall(ways[f"beam {kind}"]().ids, ways[kind]().ids) for kind in get_args(Kind)
        }
        ways["plain JAX"] = partial(ready, plain, query, items_on)
        ways |= faiss_ways(table, np.asarray(query), count)
        times = turns(ways, rounds, pause=PAUSE)
        medians = {way: statistics.median(values) * 1e3 for way, values in times.items()}
        kinds = " ".join(f"{medians.pop(kind):9.1f}" for kind in get_args(Kind))
        beams = " ".join(
            f"{medians.pop(f'beam {kind}'):.1f} ({recalls[kind]:.3f})" for kind in get_args(Kind)
        )
        others = ", ".join(f"{way} {value:.1f}" for way, value in medians.items())
        name = "structured" if structured else "structureless"
        print(f"{name:14s} {asked:5d} {kinds} | {beams} | {others}", flush=True)


def ready(run: Callable[..., Any], *given: Any) -> Any:
    """Call a function and wait for its result."""
    return jax.block_until_ready(run(*given))


def searching(kind: Kind, clusters: int | None = None) -> Callable[..., Any]:
    """Our search of one kind, compiled."""
    return jax.jit(lambda index, query: search(index, query, K, kind=kind, clusters=clusters))


def recall(found: Any, wanted: Any) -> float:
    """The share of the wanted ids that was found."""
    pairs = zip(np.asarray(found), np.asarray(wanted), strict=True)
    return float(np.mean([np.isin(one, other).mean() for other, one in pairs]))


@jax.jit
def plain(query: jax.Array, items: jax.Array) -> Any:
    """Top-k in two lines of plain JAX."""
    return jax.lax.top_k(query @ items.T, K)


def faiss_ways(table: np.ndarray, query: np.ndarray, lists: int) -> dict[str, Callable[[], Any]]:
    """Faiss' searches with the products alone; empty if it is not installed."""
    try:
        faiss: Any = importlib.import_module("faiss")
    except ImportError:
        return {}
    flat = faiss.IndexFlatIP(table.shape[1])
    flat.add(table)
    quantizer = faiss.IndexFlatIP(table.shape[1])
    parted = faiss.IndexIVFFlat(quantizer, table.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    parted.train(table[rng.choice(len(table), min(len(table), 64 * lists), replace=False)])
    parted.add(table)
    _, wanted = flat.search(query, K)
    probes = 1
    while probes < lists:
        parted.nprobe = probes
        _, found = parted.search(query, K)
        hits = sum(len(set(a) & set(b)) for a, b in zip(found, wanted, strict=True))
        if hits == wanted.size:
            break
        probes *= 2
    return {
        "faiss Flat": lambda: flat.search(query, K),
        f"faiss IVF ({probes} of {lists} lists)": lambda: parted.search(query, K),
    }


if __name__ == "__main__":
    main()
