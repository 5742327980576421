"""Measures a whole step with a large item table: loss, gradients, optimizer, donated state.

python -m benchmarks.item_updates [--items 100000 ...] [--width 64 ...] [--positions 256 ...]
    [--sizes equal ...] [--optimizer adam ...] [--rounds 5]

Three things take turns in one process: the step that updates only the rows a batch touches, the
step that updates all rows, and the limit. The limit is the time of the second softmax's arithmetic
as products of equal clusters, scaled by the number of multiplications, plus one pass `rows * 0.9`
over as many rows as are touched, of the table and of each moment array. Prints medians and ratios
to the limit. As in the training commands, the process keeps freed memory.
"""

import argparse
import statistics
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.clusterings import SIZES, Sizes, clustering
from benchmarks.head import CLUSTERS
from benchmarks.turns import turns
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head import ROW_GRADIENTS, places_for, touched_by
from efficientids_flax.core.head.second import Entropy, Labels, Places, member_losses
from efficientids_flax.host_memory import keep_freed_memory
from efficientids_flax.train.optimizer import create_optimizer
from efficientids_flax.train.state import TrainState, without_frozen
from efficientids_flax.train.step.function import StepOptions, make_step
from efficientids_flax.train.step.rows import ItemTable, RowUpdates

OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {"sgd": {"momentum": 0.0}, "adam": {}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, action="append")
    parser.add_argument("--width", type=int, action="append")
    parser.add_argument("--positions", type=int, action="append")
    parser.add_argument("--sizes", choices=SIZES, action="append")
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), action="append")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    keep_freed_memory()
    print("  items width positions sizes      optimizer touched  rows ms  all ms limit ms ratio")
    for items in given.items or (100_000, 1_000_000):
        for width in given.width or (64,):
            for positions in given.positions or (256,):
                for sizes in given.sizes or SIZES:
                    for name in given.optimizer or OPTIMIZERS:
                        line = row(items, width, positions, sizes, name, given.rounds)
                        print(line, flush=True)


def row(items: int, width: int, positions: int, sizes: Sizes, name: str, rounds: int) -> str:
    """One line of the table."""
    clusters = CLUSTERS.get(items) or round(items**0.5)
    tables = clustering(items, clusters, sizes)
    rng = np.random.default_rng(1)
    labels = rng.integers(0, items, positions)
    batch = {"labels": jnp.asarray(labels)}
    params = {
        "item_embedding": {
            "kernel": jnp.asarray(rng.normal(size=(width, items)) * 0.1, jnp.float32)
        },
        "query": jnp.asarray(rng.normal(size=(positions, width)), jnp.float32),
    }
    steps = {"rows": _Step(params, batch, tables, name, by_row=True)}
    steps["all"] = _Step(params, batch, tables, name, by_row=False)
    counts = np.bincount(tables.cluster_of)
    touched = int(counts[np.unique(tables.cluster_of[labels])].sum())
    members, asked = -(-items // clusters), -(-positions // clusters)
    rows, some = jnp.ones((clusters, members, width)), jnp.ones((clusters, asked, width))

    def products(rows: jax.Array, some: jax.Array) -> Any:
        logits = jnp.einsum("kmw,kpw->kmp", rows, some)
        return jnp.einsum("kmp,kmw->kpw", logits, rows), jnp.einsum("kmp,kpw->kmw", logits, some)

    multiply, one_pass = jax.jit(products), jax.jit(lambda rows: rows * 0.9)
    part = jnp.ones((steps["rows"].arrays, touched, width))
    times = turns(
        {
            **{name: step.take for name, step in steps.items()},
            "products": lambda: multiply(rows, some),
            "pass": lambda: one_pass(part),
        },
        rounds,
    )
    share = counts[tables.cluster_of[labels]].sum() / (clusters * members * asked)
    limit = statistics.median(
        a * share + b for a, b in zip(times["products"], times["pass"], strict=True)
    )
    ours, dense = (statistics.median(times[name]) for name in ("rows", "all"))
    return (
        f"{items:7d} {width:5d} {positions:9d} {sizes:10s} {name:9s} {touched:7d}"
        f" {ours * 1e3:8.1f} {dense * 1e3:7.1f} {limit * 1e3:8.1f} {ours / limit:5.2f}"
    )


class _Step:
    """One way to take steps.

    `arrays` are the table and its moments, with one row per item.
    """

    def __init__(
        self, params: Any, batch: Any, clustering: ClusteringInfo, name: str, *, by_row: bool
    ) -> None:
        entropy, positions = Entropy(), batch["labels"].shape[0]
        nothing = jnp.zeros(0, jnp.int32)

        def apply(variables: Any, batch: Any) -> jax.Array:
            params, given = variables["params"], variables.get(ROW_GRADIENTS)
            places = None
            if given is not None:
                places = Places(given["values"], given["touched"].starts())
            labels = Labels(jnp.asarray(clustering.cluster_of)[batch["labels"]], batch["labels"])
            weights = jnp.full(positions, 1 / positions)
            table = params["item_embedding"]["kernel"].T if given is None else given["rows"]
            return member_losses(
                entropy, clustering, params["query"], table, labels, weights, places=places
            ).total  # pyright: ignore[reportReturnType]

        def loss(params: Any, batch: Any, model_state: Any, rng: Any, apply_fn: Any) -> Any:
            return apply_fn({"params": params}, batch), {}, model_state

        optimizer = create_optimizer(0.1, name, **OPTIMIZERS[name])
        rows = None
        if by_row:
            assert optimizer.by_row is not None
            of = ItemTable(
                clustering,
                lambda batch: touched_by(clustering, batch["labels"], nothing),
                lambda batch: places_for(clustering, positions, 0),
            )
            rows = RowUpdates(optimizer.by_row, of)
        state = TrainState.create(jax.tree.map(jnp.copy, params), optimizer, rng=jax.random.key(0))
        self.arrays = sum(
            x.size == params["item_embedding"]["kernel"].size
            for x in jax.tree.leaves((state.trained, state.opt_state))
        )
        self._state, frozen = without_frozen(state if rows is None else rows.entered(state))
        step = make_step(loss, apply, optimizer, StepOptions(), rows=rows)
        compiled = jax.jit(step, donate_argnums=0)
        alive = jnp.asarray(True)
        self._step = lambda state: compiled(state, frozen, batch, alive)

    def take(self) -> Any:
        """Take one step; gives what to wait for."""
        self._state, _, metrics = self._step(self._state)
        return metrics, self._state


if __name__ == "__main__":
    main()
