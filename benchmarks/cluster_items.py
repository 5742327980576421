"""Clusters a catalogue by k-means, balanced k-means and scikit-learn's MiniBatchKMeans.

    python -m benchmarks.cluster_items
    python -m benchmarks.cluster_items --items 1000000 --width 256

The vectors are a mixture of normal distributions, twice as many as clusters and of very unequal
sizes. Each run is a separate process, and the ways take turns. Time and CPU time exclude imports
and reading the vectors; inertia is measured to the means of the assigned points.
"""

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from benchmarks.measure import ROOT, processor

WAYS = ("kmeans", "balanced-kmeans", "MiniBatchKMeans")
PEER = "MiniBatchKMeans"


def make_vectors(path: Path, items: int, width: int) -> None:
    """Write synthetic vectors, float32 [I, E]."""
    rng = np.random.default_rng(0)
    groups = 2 * clusters_of(items)
    tops = rng.standard_normal((groups, width), np.float32)
    group = rng.choice(groups, items, p=rng.dirichlet(np.ones(groups)))
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (items, width))
    for start in range(0, items, 1 << 14):
        part = group[start : start + (1 << 14)]
        vectors[start : start + len(part)] = tops[part] + rng.standard_normal(
            (len(part), width), np.float32
        )
    vectors.flush()


def clusters_of(items: int) -> int:
    """The number of clusters, K."""
    return math.isqrt(items - 1) + 1


def run(way: str, path: Path) -> dict[str, Any]:
    """Run one way in this process: seconds, CPU seconds, bytes, inertia, largest cluster."""
    from sklearn.cluster import MiniBatchKMeans

    from efficientids_flax.cluster import ClusterOptions, cluster_items
    from efficientids_flax.cluster.centers import means, squared_distances

    vectors = np.load(path)
    clusters = clusters_of(len(vectors))
    peer: Any = MiniBatchKMeans(clusters, random_state=0, n_init=1)  # pyright: ignore[reportArgumentType]
    began, cpu = time.monotonic(), time.process_time()
    if way == PEER:
        labels = peer.fit_predict(vectors)
    else:
        options = ClusterOptions(way, clusters)
        labels = cluster_items(vectors, options).clustering.cluster_of
    took = {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    apart = squared_distances(vectors, means(vectors, labels, clusters), labels)
    sizes = np.bincount(labels, minlength=clusters)
    return took | {"peak": peak, "bytes": vectors.nbytes, "largest": int(sizes.max()),
                   "empty": int((sizes == 0).sum()),
                   "inertia": float(apart.sum(dtype=np.float64))}  # fmt: skip


@click.command()
@click.option("--items", default=200_000, show_default=True)
@click.option("--width", default=64, show_default=True)
@click.option("--repeat", default=1, show_default=True)
@click.option("--way", "ways", type=click.Choice(WAYS), multiple=True, default=WAYS)
@click.option("--one", type=click.Choice(WAYS), hidden=True)
@click.option("--vectors", type=click.Path(path_type=Path), hidden=True)
def main(
    items: int, width: int, repeat: int, ways: tuple[str, ...], one: str | None,
    vectors: Path | None,
) -> None:  # fmt: skip
    """Print a table; ratios are to MiniBatchKMeans."""
    if one is not None and vectors is not None:
        print(json.dumps(run(one, vectors)))
        return
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        make_vectors(path, items, width)
        for _ in range(repeat):
            for way in ways:
                command = [sys.executable, "-m", "benchmarks.cluster_items", "--one", way,
                           "--vectors", str(path)]  # fmt: skip
                done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
                found[way].append(json.loads(done.stdout))
    print(f"{processor()}; {items:,} x {width}, {clusters_of(items):,} clusters")
    print("| way | s | CPU s | s, ratio | CPU, ratio | inertia, ratio | largest | empty | peak |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    middle = {way: {key: median(run[key] for run in runs) for key in runs[0]}
              for way, runs in found.items()}  # fmt: skip
    for way, row in middle.items():
        peer = middle.get(PEER, row)
        ratios = (f"{row[key] / peer[key]:.3f}" for key in ("seconds", "cpu", "inertia"))
        print(
            f"| {way} | {row['seconds']:.1f} | {row['cpu']:.1f} | {' | '.join(ratios)} |"
            f" {row['largest']:,.0f} | {row['empty']:.0f} | {row['peak'] / row['bytes']:.2f} |"
        )


if __name__ == "__main__":
    main()
