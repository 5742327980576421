"""Compares forward passes of two language models in float32 with torch on the same cores.

    python -m benchmarks.forward_hf

The models have the shapes of Qwen3-0.6B and Llama-3.2-1B and random weights, the same for both
sides. Two processes hold them, ours compiled, transformers' with its default attention. They take
turns, and the first call of each does not count.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.load_hf import SHAPES, make_checkpoint
from benchmarks.measure import ROOT, processor

WAYS = ("efficientids_flax", "torch")
WHAT = ("all", "last")  # positions whose logits are computed


def forward(way: str, folder: str) -> Callable[[np.ndarray, str], Any]:
    """Load a model; gives `run(ids, what)`: logits of all positions or of the last one."""
    if way == "torch":
        return forward_torch(folder)
    import jax
    import jax.numpy as jnp

    from converters.huggingface import load_pretrained_lm
    from efficientids_flax.backbone import Decoder

    config, params = load_pretrained_lm(folder, "float32")
    decoder = Decoder(config)

    def run(params: Any, ids: Any, what: str) -> jax.Array:
        at = jnp.full((len(ids), 1), -1) if what == "last" else None
        hidden: Any = decoder.apply({"params": params}, ids, at=at)
        found: Any = decoder.apply({"params": params}, hidden, method=Decoder.logits)
        return found

    compiled = jax.jit(run, static_argnums=2)
    return lambda ids, what: compiled(params, ids, what).block_until_ready()


def forward_torch(folder: str) -> Callable[[np.ndarray, str], Any]:
    """The same for transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def run(ids: np.ndarray, what: str) -> Any:
        with torch.inference_mode():
            keep = 1 if what == "last" else 0
            given = torch.from_numpy(ids.astype(np.int64))
            return model(given, use_cache=False, logits_to_keep=keep).logits

    return run


def serve(way: str, folder: str, rows: int, length: int) -> None:
    """For each line of standard input, a word of `WHAT`, run it and print what it took."""
    run = forward(way, folder)
    words = SHAPES[Path(folder).name]["vocab_size"]
    ids = np.random.default_rng(0).integers(0, words, (rows, length)).astype(np.int32)
    for line in sys.stdin:
        started, used = time.perf_counter(), time.process_time()
        found = run(ids, line.strip())
        seconds = [time.perf_counter() - started, time.process_time() - used]
        top = np.asarray(found[0, -1], np.float32)
        click.echo(json.dumps([*seconds, float(top.max()), int(top.argmax())]))
        sys.stdout.flush()


class Child:
    """A process that runs one way on request."""

    def __init__(self, way: str, folder: Path, rows: int, length: int) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.forward_hf", "--child", way]
        self.process = subprocess.Popen(
            [*command, str(folder), "--rows", str(rows), "--length", str(length)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, what: str) -> tuple[float, float, float, int]:
        """(seconds, CPU seconds, largest logit of the last position, its token)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return tuple(json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--rounds", type=click.IntRange(1), default=7)
@click.option("--rows", type=click.IntRange(1), default=1, help="Rows of the batch.")
@click.option("--length", type=click.IntRange(1), default=128, help="Length of a row.")
@click.option(
    "--model", "models", type=click.Choice(list(SHAPES)), multiple=True, help="Default: all."
)
@click.option(
    "--place", type=click.Path(path_type=Path), help="Folder to work in (default: a new one)."
)
@click.option("--child", nargs=2, hidden=True)
def main(
    rounds: int, rows: int, length: int, models: tuple[str, ...], place: Path | None,
    child: tuple[str, str] | None,
) -> None:  # fmt: skip
    """Print the median time of a forward pass of each, and ours relative to torch's."""
    if child:
        serve(*child, rows, length)
        return
    click.echo(f"batch {rows} x {length}, float32, median of {rounds} rounds, {processor()}\n")
    click.echo("| model | logits of | ours, s | torch, s | ours / torch | CPU, ours / torch |")
    click.echo("| --- | --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for model in models or SHAPES:
            make_checkpoint(Path(folder) / model, SHAPES[model])
            children = [Child(way, Path(folder) / model, rows, length) for way in WAYS]
            for what in WHAT:
                ours, theirs = [one.ask(what) for one in children]
                np.testing.assert_allclose(ours[2:], theirs[2:], rtol=1e-3)
                taken = np.array([[one.ask(what)[:2] for one in children] for _ in range(rounds)])
                times = np.median(taken[:, :, 0], axis=0)
                ratios = np.median(taken[:, 0] / taken[:, 1], axis=0)
                click.echo(
                    f"| {model} | {what} | {times[0]:.3f} | {times[1]:.3f} | {ratios[0]:.2f} |"
                    f" {ratios[1]:.2f} |"
                )
            for one in children:
                one.close()


if __name__ == "__main__":
    main()
