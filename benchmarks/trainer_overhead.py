"""Measures the Trainer's overhead over two plain loops, at steps of about 2 ms.

    python -m benchmarks.trainer_overhead

All train the same network with the same optimizer on the same batches, and read the loss every 10
steps. The bare loop has a minimal hand-written step. The guarded loop has the Trainer's own step,
which also computes the gradient norm and skips updates that are not finite. The Trainer also draws
its progress bar, and writes event files and `history.jsonl`.

They take turns in short stretches in one process: when the Trainer asks for its next batch, the
other loops run their stretches before it gets one. The rows of a batch are chosen first, so that a
step of the bare loop takes the requested time. Figures are medians over the rounds of the ratio of
one loop's time to another's, in wall time and in CPU time of all threads; the latter is more
reliable if other programs use the machine.
"""

import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from typing import Any, NamedTuple

import click
import jax
import numpy as np
import optax
from flax import linen as nn

from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state import without_frozen
from efficientids_flax.train.step import compile_step, make_objective
from efficientids_flax.train.step.initial_state import initial_state
from efficientids_flax.train.trainer import Trainer

LOG_EVERY = 10
TRAINER = "Trainer"
WARM_UP = 20  # steps before a stretch is timed
WIDTH, CLASSES = 128, 10
FIRST_ROWS, LEAST_ROWS = 512, 16  # of a batch

Batch = dict[str, np.ndarray]
Loop = Callable[[int], "Cost"]  # number of steps after the warm-up -> cost


class Cost(NamedTuple):
    """Seconds per step."""

    wall: float
    processor: float


class Watch:
    """Measures the time of some steps."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def cost(self, steps: int) -> Cost:
        """Cost per step since it was created."""
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


def plain_loop(batches: list[Batch], step: Callable[..., Any], held: Any) -> Loop:
    """A function that runs steps of a plain loop.

    Args:
        batches: used in turn.
        step: (held, batch) -> (held, array), jitted; the array holds what is read.
        held: initial state; donated.
    """
    source = cycle(batches)

    def run(steps: int) -> Cost:
        nonlocal held
        watch = Watch()
        for count in range(-WARM_UP, steps):
            if count == 0:
                watch = Watch()
            held, found = step(held, next(source))
            if (count + 1) % LOG_EVERY == 0:
                np.asarray(found)
        return watch.cost(steps)

    return run


def bare_loop(batches: list[Batch], optimizer: optax.GradientTransformation) -> Loop:
    """A loop with a minimal hand-written step."""
    network = Network()

    def step(held: Any, batch: Batch) -> Any:
        params, state = held

        def objective(params: Any) -> jax.Array:
            return loss_fn(params, batch, {}, None, network.apply)[0]

        loss, gradients = jax.value_and_grad(objective)(params)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), loss

    params = network.init(jax.random.key(0), batches[0]["x"])["params"]
    return plain_loop(batches, jax.jit(step, donate_argnums=0), (params, optimizer.init(params)))


def guarded_loop(batches: list[Batch], optimizer: optax.GradientTransformation) -> Loop:
    """A loop with the Trainer's step."""
    objective = make_objective(Network(), loss_fn)
    state = initial_state(objective, optimizer, jax.random.key(0), batches[0])
    compiled = compile_step(objective, optimizer, TrainingOptions(), state, batches[0])

    def step(held: Any, batch: Batch) -> Any:
        state, metrics = compiled(held[0], {}, batch, held[1])
        return (state, metrics), metrics

    return plain_loop(batches, step, (without_frozen(state)[0], compiled.none()))


def made_batches(rows: int) -> list[Batch]:
    """Eight batches of `rows` rows."""
    rng = np.random.default_rng(0)
    return [
        {
            "x": rng.normal(size=(rows, WIDTH)).astype(np.float32),
            "y": rng.integers(0, CLASSES, rows, dtype=np.int32),
        }
        for _ in range(8)
    ]


def rows_for(seconds: float, optimizer: optax.GradientTransformation, steps: int) -> int:
    """Rows of a batch with which a step of the bare loop takes about `seconds`."""
    rows = FIRST_ROWS
    for _ in range(3):
        run = bare_loop(made_batches(rows), optimizer)
        taken = min(run(steps).wall for _ in range(9))  # slower runs were disturbed
        rows = max(round(rows * seconds / taken / LEAST_ROWS), 1) * LEAST_ROWS
    return rows


def in_turns(
    batches: list[Batch], loops: Mapping[str, Loop], rounds: int, steps: int
) -> tuple[Iterator[Batch], dict[str, list[Cost]]]:
    """Batches for the Trainer, and the costs measured while it asks for them.

    Returns:
        (batches, costs per step in each round, by loop and for the Trainer).
    """
    found: dict[str, list[Cost]] = {name: [] for name in (*loops, TRAINER)}
    source = cycle(batches)

    def turns() -> Iterator[Batch]:
        for _ in range(rounds):
            for name, run in loops.items():
                found[name].append(run(steps))
            watch = Watch()
            for count in range(-WARM_UP, steps):
                if count == 0:  # timed from batch request to batch request: equal work is pending
                    watch = Watch()
                yield next(source)
            found[TRAINER].append(watch.cost(steps))
            time.sleep(0.02)  # let pending work end before the next loop

    return turns(), found


def measure(rounds: int, steps: int, rows: int, bar: bool) -> dict[str, list[Cost]]:
    """Costs per step in each round, by loop."""
    batches, optimizer = made_batches(rows), optax.adamw(1e-3)
    loops = {
        "bare loop": bare_loop(batches, optimizer),
        "guarded loop": guarded_loop(batches, optimizer),
    }
    source, found = in_turns(batches, loops, rounds, steps)
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


def described(costs: Mapping[str, list[Cost]], clock: str, loop: str, other: str) -> str:
    """One line: how much longer a step takes in one loop than in the other, by one clock."""
    ours, plain = ([getattr(cost, clock) for cost in costs[name]] for name in (loop, other))
    ratios = [one / base - 1 for one, base in zip(ours, plain, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return (
        f"{clock:9}  {loop}: {1e3 * statistics.median(ours):.2f} ms a step, {median:+.1%} on the"
        f" {other}'s (quartiles {low:+.1%}, {high:+.1%})\n"
    )


@click.command()
@click.option("--rounds", default=100, show_default=True)
@click.option("--steps", default=100, show_default=True, help="Timed steps in each turn.")
@click.option(
    "--step-ms", default=2.0, show_default=True, help="Time that a bare step should take."
)
@click.option("--rows", type=int, help="Rows of a batch, instead of what --step-ms needs.")
@click.option("--bar/--no-bar", default=True, show_default=True, help="Draw the progress bar.")
def main(rounds: int, steps: int, step_ms: float, rows: int | None, bar: bool) -> None:
    """Measure the Trainer's overhead."""
    if rows is None:
        rows = rows_for(step_ms / 1e3, optax.adamw(1e-3), steps)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        found = measure(rounds, steps, rows, bar)
    sys.stdout.write(f"{rounds} rounds of {steps} steps, {rows} rows a batch\n")
    bare, guarded = (name for name in found if name != TRAINER)
    for clock in Cost._fields:
        for loop, other in ((guarded, bare), (TRAINER, guarded), (TRAINER, bare)):
            sys.stdout.write(described(found, clock, loop, other))


if __name__ == "__main__":
    main()
