"""Kills `efficientids train` at random moments, and compares the result with an unbroken run.

    python -m benchmarks.kills 100                  # one process
    python -m benchmarks.kills 30 --processes 2     # two, of which one is killed, then the other

A small recommender is trained once without interruption. Then the same command runs in another
directory, gets signal 9 after a random time, and runs again, until it finishes. That directory is
compared with the unbroken one bit by bit: parameters, optimizer state, step and random key of the
last checkpoint, and the losses of every step. This repeats until the requested number of kills is
reached. Prints what was compared; exits with 1 at the first difference.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from etils import epath

from efficientids_flax.data import MarkovItems
from efficientids_flax.stored.items import read_item
from efficientids_flax.tree import flatten

# Restarted runs find compiled code in the cache, so that most kills hit training steps.
COMPILED = {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
STEPS, SAVE_EVERY = 120, 5
CONFIG = f"""
model: {{kind: simple, item_embedding_dim: 32, model_dims: 64, num_layers: 1, num_heads: 2,
  dropout: 0.1}}
training: {{num_steps: {STEPS}, progress: none, plot: false, log_every: 5, eval_every: 40}}
data: {{batch_size: 32}}
optimizer: {{learning_rate: 0.01, ema_decay: 0.9}}
checkpoint: {{save_every: {SAVE_EVERY}, max_to_keep: 2, keep_best: eval_loss}}
"""


@click.command()
@click.argument("kills", type=click.IntRange(min=1), default=100)
@click.option("--processes", type=click.IntRange(1, 2), default=1, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random moments.")
@click.option("--minutes", type=float, default=1e9, help="Begin no further run after this time.")
def main(kills: int, processes: int, seed: int, minutes: float) -> None:
    """Deal so many KILLS, compare."""
    moments, end = random.Random(seed), time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        _prepare(root)
        for name in ("first", "whole"):  # the first run fills the compilation cache
            start = time.monotonic()
            _run(root, root / name, processes, None, moments)
        taken = time.monotonic() - start
        wanted, dealt, runs = _found(root / "whole"), 0, 0
        click.echo(f"an unbroken run takes {taken:.1f} s")
        while dealt < kills and time.monotonic() < end:
            place = root / f"killed_{runs}"
            since = time.monotonic()
            begun = since
            while not _run(root, place, processes, moments.uniform(0, taken), moments):
                dealt, begun = dealt + 1, time.monotonic()
                taken *= 1.1  # else no run would make progress on a busy machine
            taken = max(time.monotonic() - begun, 0.5 * taken)
            runs += 1
            _compare(place, wanted)
            seconds = time.monotonic() - since
            click.echo(f"run {runs}: the same after {dealt} kills in all, {seconds:.0f} s")
    click.echo(f"{dealt} kills in {runs} runs of {processes} process(es): all ended the same")


def _prepare(root: Path) -> None:
    process = MarkovItems.random(num_clusters=8, cluster_size=12)
    (root / "data").mkdir()
    for index, split in enumerate(("train", "eval")):
        sequences = process.sequences(1000 if split == "train" else 200, 17, seed=index)
        np.savez(root / "data" / f"{split}.npz", sequences=sequences)
    process.clustering.save(root / "data" / "clustering.npz")
    (root / "run.yaml").write_text(CONFIG)


def _run(
    root: Path, place: Path, processes: int, moment: float | None, moments: random.Random
) -> bool:
    """Run the command, killed after `moment` seconds; gives whether it finished by itself."""
    command = [sys.executable, "-m", "efficientids_flax.train", "--config", root / "run.yaml",
               "--data-dir", root / "data", "--output-dir", place]  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for number in range(processes):
        apart = ["--distributed", "--coordinator", f"127.0.0.1:{port}", "--processes", processes,
                 "--process", number] if processes > 1 else []  # fmt: skip
        log = (root / f"log_{number}").open("w")
        started.append(
            subprocess.Popen(
                [*map(str, command), *map(str, apart)], stdout=log, stderr=log,
                env={**os.environ, **COMPILED, "JAX_COMPILATION_CACHE_DIR": str(root / "cache")},
            )
        )  # fmt: skip
        log.close()
    try:
        started[0].wait(timeout=600 if moment is None else moment)
        for other in started[1:]:
            other.wait(timeout=60)
    except subprocess.TimeoutExpired:
        moments.shuffle(started)
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(moments.uniform(0, 0.5) if processes > 1 else 0)
        return False
    for number, process in enumerate(started):
        if process.returncode:
            click.echo((root / f"log_{number}").read_text(), err=True)
            sys.exit(1)
    return True


def _found(place: Path) -> dict[str, bytes]:
    """The results of a run, by name."""
    leaves = flatten(read_item(epath.Path(place / str(STEPS)), "state", None))
    rows: dict[int, dict[str, float]] = {}
    for line in (place / "history.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows.setdefault(row["step"], {}).update(row)
    found = {name: np.asarray(leaf).tobytes() for name, leaf in leaves.items()}
    return found | {"history": json.dumps([rows[step] for step in sorted(rows)]).encode()}


def _compare(place: Path, wanted: dict[str, bytes]) -> None:
    found = _found(place)
    if wrong := [name for name in found.keys() | wanted if found.get(name) != wanted.get(name)]:
        click.echo(f"{place.name}: differ from the unbroken run: {', '.join(sorted(wrong))}")
        sys.exit(1)


if __name__ == "__main__":
    main()
