"""Evaluation of users over a large catalogue, beside the matrix product alone.

python -m benchmarks.evaluation [--users 10000] [--items 100000] [--width 64] [--hierarchical]
    [--rows 256] [--batch 256]

With one label per user, two things take turns in one process: the product of the queries with the
whole item table, `--rows` of them at a time, and the Trainer's evaluation (loss and ranking),
`--batch` users at a time. Prints wall and CPU seconds of both, their ratios, and the temporary
memory of the evaluation compiled for one batch of all users.
On a machine with other load, go by the CPU seconds.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.measuring import POSITIONS, evaluation_sums
from efficientids_flax.core.models import SimpleEfficientIDSModel
from efficientids_flax.train.state import BatchPlacer
from efficientids_flax.train.step import Evaluator, make_objective


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, value in (("users", 10_000), ("items", 100_000), ("width", 64), ("rounds", 3),
                        ("rows", POSITIONS), ("batch", 256)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--hierarchical", action="store_true")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    tables = None
    if given.hierarchical:  # unequal sizes, like those of k-means
        count = int(given.items**0.5)
        shares = rng.gamma(2.0, size=count)
        tables = ClusteringInfo.from_assignments(
            np.concatenate(
                [np.arange(count), rng.choice(count, given.items - count, p=shares / shares.sum())]
            )
        )
    model = SimpleEfficientIDSModel(  # pyright: ignore[reportCallIssue]
        num_items=given.items, item_embedding_dim=given.width, model_dims=given.width,
        num_heads=1, num_layers=1, full_softmax=tables is None, clustering_info=tables,
    )  # fmt: skip
    ids = rng.integers(0, given.items, (given.users, 2)).astype(np.int32)
    batch = {"ids": ids[:, :1], "labels": ids[:, 1:],
             "weights": np.ones((given.users, 1), np.float32)}  # fmt: skip
    batches = [
        {name: value[start : start + given.batch] for name, value in batch.items()}
        for start in range(0, given.users, given.batch)
    ]
    params = model.init(jax.random.key(0), jnp.zeros((1, 2), int))["params"]
    whole = jax.jit(lambda params: evaluation_sums(model, params, batch)).lower(params).compile()
    analysis = whole.memory_analysis()
    temporaries = 0 if analysis is None else analysis.temp_size_in_bytes / 2**20
    evaluator = Evaluator(make_objective(model), BatchPlacer(None, model.config))

    query = jnp.asarray(rng.normal(size=(given.users, given.width)), jnp.float32)
    table = jnp.asarray(rng.normal(size=(given.items, given.width)), jnp.float32)
    size = given.rows

    def product(query: jax.Array, table: jax.Array) -> jax.Array:
        """Compute all products by blocks; one row of each is returned, so that none is skipped."""
        blocks = query[: len(query) // size * size].reshape(-1, size, given.width)
        return jax.lax.map(
            lambda rows: jax.lax.optimization_barrier(
                jnp.einsum("pw,iw->pi", rows, table, precision="highest")
            )[0],
            blocks,
        )

    multiply = jax.jit(product).lower(query, table).compile()
    clocks = {"wall": time.perf_counter, "processor": time.process_time}
    times: dict[str, list[tuple[float, ...]]] = {"product": [], "evaluation": []}
    ways = {
        "product": lambda: multiply(query, table),
        "evaluation": lambda: evaluator({"params": params}, batches),
    }
    for _ in range(given.rounds + 1):
        for name, run in ways.items():
            starts = [clock() for clock in clocks.values()]
            jax.block_until_ready(run())
            ends = [clock() for clock in clocks.values()]
            times[name].append(tuple(b - a for a, b in zip(starts, ends, strict=True)))
    kind = "hierarchical" if given.hierarchical else "full softmax"
    print(
        f"{given.users} users, {given.batch} at a time, {given.items} items, width {given.width},"
        f" {kind}"
    )
    for place, clock in enumerate(clocks):
        plain, whole = ([one[place] for one in times[name][1:]] for name in times)
        ratio = statistics.median(b / a for a, b in zip(plain, whole, strict=True))
        print(
            f"{clock}: product {statistics.median(plain):.2f} s,"
            f" evaluation {statistics.median(whole):.2f} s, {ratio:.2f} times"
        )
    print(f"temporaries {temporaries:.0f} MB")


if __name__ == "__main__":
    main()
