"""What the Trainer costs beside a bare jitted loop, at steps of about 2 ms.

    python -m benchmarks.trainer_overhead

Both train the same network with the same optimizer on the same batches, and read the loss every 10
steps. The Trainer also draws its progress bar, writes event files and `history.jsonl`, and sees to
it that every step is finite. They take turns, a stretch each, in one process: the Trainer asks for
its next batch, and the bare loop's stretch runs before it gets one. The figure is the median over
the rounds of the Trainer's time by the bare loop's.
"""

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import click
import jax
import numpy as np
import optax
from flax import linen as nn

from efficientids_flax.train.trainer import Trainer

LOG_EVERY = 10
WARM_UP = 50  # steps before a stretch is timed
WIDTH, CLASSES = 128, 10

Batch = dict[str, np.ndarray]


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


def bare_loop(batches: list[Batch], optimizer: Any, params: Any) -> Callable[[int], float]:
    """A function that takes steps of a plain loop and returns the seconds of each."""
    network = Network()

    def step(params: Any, state: Any, batch: Batch) -> Any:
        def objective(params: Any) -> jax.Array:
            return loss_fn(params, batch, {}, None, network.apply)[0]

        loss, gradients = jax.value_and_grad(objective)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    jitted = jax.jit(step, donate_argnums=(0, 1))
    held = {"params": params, "state": optimizer.init(params)}
    source = cycle(batches)

    def run(steps: int) -> float:
        params, state = held["params"], held["state"]
        start = 0.0
        for count in range(-WARM_UP, steps):
            if count == 0:
                start = time.perf_counter()
            params, state, loss = jitted(params, state, next(source))
            if (count + 1) % LOG_EVERY == 0:
                float(loss)
        taken = time.perf_counter() - start
        held.update(params=params, state=state)
        return taken / steps

    return run


def in_turns(
    batches: list[Batch], bare: Callable[[int], float], rounds: int, steps: int
) -> tuple[Iterator[Batch], list[tuple[float, float]]]:
    """Batches for the Trainer, and what is measured while it asks for them.

    Returns:
        (batches, (seconds of a step of the Trainer, of the bare loop) of each round).
    """
    found: list[tuple[float, float]] = []
    source = cycle(batches)

    def turns() -> Iterator[Batch]:
        for _ in range(rounds):
            plain = bare(steps)
            start = 0.0
            for count in range(-WARM_UP, steps):
                if count == 0:  # asked for a batch both times: as much is under way then as now
                    start = time.perf_counter()
                yield next(source)
            found.append(((time.perf_counter() - start) / steps, plain))
            time.sleep(0.05)  # what is still under way is not the bare loop's

    return turns(), found


def measure(rounds: int, steps: int, rows: int, bar: bool) -> list[tuple[float, float]]:
    """Seconds of a step, of the Trainer and of the bare loop, in each round."""
    rng = np.random.default_rng(0)
    batches = [
        {
            "x": rng.normal(size=(rows, WIDTH)).astype(np.float32),
            "y": rng.integers(0, CLASSES, rows, dtype=np.int32),
        }
        for _ in range(8)
    ]
    optimizer = optax.adamw(1e-3)
    params = Network().init(jax.random.key(0), batches[0]["x"])["params"]
    source, found = in_turns(batches, bare_loop(batches, optimizer, params), rounds, steps)
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


@click.command()
@click.option("--rounds", default=15, show_default=True)
@click.option("--steps", default=500, show_default=True, help="Timed steps of a stretch.")
@click.option("--rows", default=1024, show_default=True, help="Of a batch: sets the step's time.")
@click.option("--bar/--no-bar", default=True, show_default=True, help="Draw the progress bar.")
def main(rounds: int, steps: int, rows: int, bar: bool) -> None:
    """Measure the Trainer's overhead."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        found = measure(rounds, steps, rows, bar)
    ratios = [ours / plain for ours, plain in found]
    middle = statistics.median(plain for _, plain in found)
    low, median, high = statistics.quantiles(ratios, n=4)
    sys.stdout.write(
        f"bare step {1e3 * middle:.2f} ms; the Trainer's takes {median - 1:+.1%}"
        f" (quartiles {low - 1:+.1%}, {high - 1:+.1%}; {len(ratios)} rounds of {steps} steps)\n"
    )


if __name__ == "__main__":
    main()
