"""What the Trainer costs beside a bare jitted loop, at steps of about 2 ms.

    python -m benchmarks.trainer_overhead

Both train the same network with the same optimizer on the same batches, and read the loss every 10
steps. The Trainer also draws its progress bar, writes event files and `history.jsonl`, and sees to
it that every step is finite. They take turns, a short stretch each, in one process: the Trainer
asks for its next batch, and the bare loop's stretch runs before it gets one. The rows of a batch
are chosen first, so that a step of the bare loop takes the time that was asked for. The figures are
medians over the rounds of the Trainer's time by the bare loop's, of the wall clock and of the
processor (all threads): the latter tells more where other programs use the machine too.
"""

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any, NamedTuple

import click
import jax
import numpy as np
import optax
from flax import linen as nn

from efficientids_flax.train.trainer import Trainer

LOG_EVERY = 10
WARM_UP = 20  # steps before a stretch is timed
WIDTH, CLASSES = 128, 10
FIRST_ROWS, LEAST_ROWS = 512, 16  # of a batch

Batch = dict[str, np.ndarray]


class Cost(NamedTuple):
    """Seconds of a step."""

    wall: float
    processor: float


class Watch:
    """Measures a stretch of steps."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def cost(self, steps: int) -> Cost:
        """Since it was made, by the step."""
        wall, processor = self._start
        return Cost((time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps)


class Network(nn.Module):
    """Four layers."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(3):
            x = nn.relu(nn.Dense(WIDTH)(x))
        return nn.Dense(CLASSES)(x)


def loss_fn(params: Any, batch: Any, model_state: Any, rng: Any, apply_fn: Any) -> Any:
    """Cross entropy."""
    del rng
    logits = apply_fn({"params": params}, batch["x"])
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
    return entropy.mean(), {}, model_state


def bare_loop(batches: list[Batch], optimizer: Any) -> Callable[[int], Cost]:
    """A function that takes steps of a plain loop."""
    network = Network()

    def step(params: Any, state: Any, batch: Batch) -> Any:
        def objective(params: Any) -> jax.Array:
            return loss_fn(params, batch, {}, None, network.apply)[0]

        loss, gradients = jax.value_and_grad(objective)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    jitted = jax.jit(step, donate_argnums=(0, 1))
    params = network.init(jax.random.key(0), batches[0]["x"])["params"]
    held = {"params": params, "state": optimizer.init(params)}
    source = cycle(batches)

    def run(steps: int) -> Cost:
        params, state = held["params"], held["state"]
        watch = Watch()
        for count in range(-WARM_UP, steps):
            if count == 0:
                watch = Watch()
            params, state, loss = jitted(params, state, next(source))
            if (count + 1) % LOG_EVERY == 0:
                float(loss)
        cost = watch.cost(steps)
        held.update(params=params, state=state)
        return cost

    return run


def made_batches(rows: int) -> list[Batch]:
    """Eight batches of as many rows."""
    rng = np.random.default_rng(0)
    return [
        {
            "x": rng.normal(size=(rows, WIDTH)).astype(np.float32),
            "y": rng.integers(0, CLASSES, rows, dtype=np.int32),
        }
        for _ in range(8)
    ]


def rows_for(seconds: float, optimizer: Any, steps: int) -> int:
    """Rows of a batch with which a step of the bare loop takes about as long."""
    rows = FIRST_ROWS
    for _ in range(3):
        run = bare_loop(made_batches(rows), optimizer)
        taken = min(run(steps).wall for _ in range(9))  # the others were disturbed
        rows = max(round(rows * seconds / taken / LEAST_ROWS), 1) * LEAST_ROWS
    return rows


def in_turns(
    batches: list[Batch], bare: Callable[[int], Cost], rounds: int, steps: int
) -> tuple[Iterator[Batch], list[tuple[Cost, Cost]]]:
    """Batches for the Trainer, and what is measured while it asks for them.

    Returns:
        (batches, (cost of a step of the Trainer, of the bare loop) of each round).
    """
    found: list[tuple[Cost, Cost]] = []
    source = cycle(batches)

    def turns() -> Iterator[Batch]:
        for _ in range(rounds):
            plain = bare(steps)
            watch = Watch()
            for count in range(-WARM_UP, steps):
                if count == 0:  # asked for a batch both times: as much is under way then as now
                    watch = Watch()
                yield next(source)
            found.append((watch.cost(steps), plain))
            time.sleep(0.02)  # what is still under way is not the bare loop's

    return turns(), found


def measure(rounds: int, steps: int, rows: int, bar: bool) -> list[tuple[Cost, Cost]]:
    """Cost of a step, of the Trainer and of the bare loop, in each round."""
    batches, optimizer = made_batches(rows), optax.adamw(1e-3)
    source, found = in_turns(batches, bare_loop(batches, optimizer), rounds, steps)
    with tempfile.TemporaryDirectory() as directory:
        trainer = Trainer(
            Network(),
            optimizer,
            directory,
            loss_fn=loss_fn,
            log_every=LOG_EVERY,
            save_every=0,
            progress="bar" if bar else "none",
            plot=False,
        )
        state = trainer.create_train_state(jax.random.key(0), batches[0])
        total = rounds * (WARM_UP + steps)
        trainer.train(state, source, num_steps=total + 1)
    return found


def described(name: str, ours: list[float], plain: list[float]) -> str:
    """One line: the bare loop's step, and by how much more the Trainer's takes."""
    ratios = [one / other - 1 for one, other in zip(ours, plain, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return (
        f"{name:9}  bare step {1e3 * statistics.median(plain):.2f} ms; the Trainer's takes"
        f" {median:+.1%} (quartiles {low:+.1%}, {high:+.1%})\n"
    )


@click.command()
@click.option("--rounds", default=100, show_default=True)
@click.option("--steps", default=100, show_default=True, help="Timed steps of a stretch.")
@click.option("--step-ms", default=2.0, show_default=True, help="What a bare step should take.")
@click.option("--rows", type=int, help="Of a batch, in place of those that take so long.")
@click.option("--bar/--no-bar", default=True, show_default=True, help="Draw the progress bar.")
def main(rounds: int, steps: int, step_ms: float, rows: int | None, bar: bool) -> None:
    """Measure the Trainer's overhead."""
    if rows is None:
        rows = rows_for(step_ms / 1e3, optax.adamw(1e-3), steps)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        found = measure(rounds, steps, rows, bar)
    sys.stdout.write(f"{rounds} rounds of {steps} steps, {rows} rows a batch\n")
    for index, name in enumerate(("wall", "processor")):
        ours, plain = ([cost[index] for cost in side] for side in zip(*found, strict=True))
        sys.stdout.write(described(name, ours, plain))


if __name__ == "__main__":
    main()
