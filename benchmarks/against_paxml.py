"""Times our gradient steps against the real PAXml's, on the same machine.

    python -m benchmarks.against_paxml --paxml .venv-paxml/bin/python

Models are a plain language model, and the recommender at two catalogue sizes. For the latter,
PAXml runs its own language model with a softmax that does what the original's does
(parity_tests/record/item_softmax.py). Both sides have the same architecture, size and batch, use
float32 and scanned layers, and run in separate processes. They alternate step by step, so that
other load on the machine affects both alike. The median over the rounds counts. `make references`
builds the environment of the real PAXml. With `--keep-memory`, the C library keeps freed memory in
both (`efficientids_flax.host_memory`).
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, cast

import click

from benchmarks.measure import ROOT

PAXML = Path(".venv-paxml/bin/python")
SIZE = {
    "vocab_size": 1024, "num_layers": 4, "model_dims": 256, "hidden_dims": 1024, "num_heads": 8,
    "batch": 8, "time": 128,
}  # fmt: skip
# The settings of `keep_freed_memory`, for a process that cannot import it.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000000",
}  # fmt: skip
MODELS = {
    "language model": {},
    "20,000 items in 150 clusters": {"num_items": 20_000, "num_clusters": 150, "item_dims": 128},
    "100,000 items in 320 clusters": {"num_items": 100_000, "num_clusters": 320, "item_dims": 128},
}


@dataclass
class Worker:
    """A process that times one step on request."""

    process: subprocess.Popen[str]
    parameters: int = 0

    def ready(self) -> None:
        """Wait until it has compiled.

        Raises:
            click.ClickException: the process ended instead.
        """
        words = cast(IO[str], self.process.stdout).readline().split()
        if words[:1] != ["ready"]:
            raise click.ClickException("a worker ended before its first step; see above")
        self.parameters = int(words[1])

    def step(self) -> float:
        """Seconds of one step."""
        given = cast(IO[str], self.process.stdin)
        given.write("\n")
        given.flush()
        return float(cast(IO[str], self.process.stdout).readline())

    def stop(self) -> None:
        """End the process."""
        self.process.communicate()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option(
    "--paxml", type=click.Path(path_type=Path), default=PAXML, help="PAXml's Python 3.10."
)
@click.option("--rounds", type=click.IntRange(1), default=15)
@click.option("--keep-memory", is_flag=True, help="Both sides keep freed memory.")
def main(paxml: Path, rounds: int, keep_memory: bool) -> None:
    """Print the medians and their ratio, a line a model."""
    if not paxml.exists():
        raise click.UsageError(f"{paxml} is not there; `make references` makes it")
    for name, more in MODELS.items():
        size = json.dumps(SIZE | more)
        script = "parity_tests/record/step_time.py"
        theirs = _start([str(paxml), "-W", "ignore", script, size], keep_memory)
        theirs.ready()
        ours = _start([sys.executable, "-m", "benchmarks.our_step", size], keep_memory)
        ours.ready()
        if ours.parameters != theirs.parameters:
            raise click.ClickException(
                f"{name}: not the same model: {ours.parameters} parameters and {theirs.parameters}"
            )
        times = [(theirs.step(), ours.step()) for _ in range(rounds)]
        theirs.stop()
        ours.stop()
        paxml_time, our_time = (median(values) for values in zip(*times, strict=True))
        click.echo(
            f"{name}: {ours.parameters} parameters; PAXml 1.4.0 {paxml_time:.3f} s a step, ours "
            f"{our_time:.3f} s; ours / PAXml {our_time / paxml_time:.2f}"
        )


def _start(command: list[str], keep_memory: bool) -> Worker:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    environment |= KEEP_MEMORY if keep_memory else {}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True
    )
    return Worker(process)


if __name__ == "__main__":
    main()
