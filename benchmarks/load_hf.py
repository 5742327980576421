"""Loads pretrained language models of two sizes: time and memory, beside a plain read.

    python -m benchmarks.load_hf

The checkpoints have the shapes of Qwen3-0.6B and Llama-3.2-1B and random bfloat16 values. Each load
is a separate process, and the ways take turns: reading the file into memory by one thread, without
casts; `load_pretrained_lm`; and `AutoModelForCausalLM.from_pretrained`, if transformers and torch
are installed. Time and memory exclude imports; the page cache is warm.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import click
import ml_dtypes
import numpy as np

from benchmarks.measure import ROOT, memory, processor

PIECE = 64 << 20  # bytes per read of the plain read
BLOCK = 4 << 20  # block of random values that a file repeats: the values do not matter
SHAPES: dict[str, dict[str, Any]] = {
    "Qwen3-0.6B": {
        "model_type": "qwen3", "num_hidden_layers": 28, "hidden_size": 1024,
        "intermediate_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True,
        "rope_theta": 1e6, "max_position_embeddings": 40_960, "torch_dtype": "bfloat16",
    },
    "Llama-3.2-1B": {
        "model_type": "llama", "num_hidden_layers": 16, "hidden_size": 2048,
        "intermediate_size": 8192, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "vocab_size": 128_256, "tie_word_embeddings": True, "rms_norm_eps": 1e-5,
        "rope_theta": 5e5, "max_position_embeddings": 131_072, "torch_dtype": "bfloat16",
    },
}  # fmt: skip
WAYS = ("plain read", "load_pretrained_lm", "transformers")


def make_checkpoint(folder: Path, values: dict[str, Any]) -> int:
    """Write a folder with random weights; returns the bytes of the tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensors(values):
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(0).normal(0, 0.02, BLOCK // 2).astype(ml_dtypes.bfloat16)
    folder.mkdir(parents=True)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, end, BLOCK):
            file.write(random.view(np.uint8)[: min(BLOCK, end - start)].data)
    (folder / "config.json").write_text(json.dumps(values))
    return end


def tensors(values: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of a Llama-like model with a tied head."""
    width, hidden, size = (values[key] for key in ("hidden_size", "intermediate_size", "head_dim"))
    queries, keys = values["num_attention_heads"] * size, values["num_key_value_heads"] * size
    yield "model.embed_tokens.weight", (values["vocab_size"], width)
    yield "model.norm.weight", (width,)
    for layer in range(values["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        yield f"{at}input_layernorm.weight", (width,)
        yield f"{at}post_attention_layernorm.weight", (width,)
        yield f"{at}self_attn.q_proj.weight", (queries, width)
        yield f"{at}self_attn.k_proj.weight", (keys, width)
        yield f"{at}self_attn.v_proj.weight", (keys, width)
        yield f"{at}self_attn.o_proj.weight", (width, queries)
        if values["model_type"] == "qwen3":
            yield f"{at}self_attn.q_norm.weight", (size,)
            yield f"{at}self_attn.k_norm.weight", (size,)
        yield f"{at}mlp.gate_proj.weight", (hidden, width)
        yield f"{at}mlp.up_proj.weight", (hidden, width)
        yield f"{at}mlp.down_proj.weight", (width, hidden)


def load(way: str, folder: str) -> Any:
    """All that one way does between the imports and the model in memory."""
    if way == "plain read":
        return read_all(Path(folder) / "model.safetensors")
    if way == "transformers":
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder)
    from converters.huggingface import load_pretrained_lm

    return load_pretrained_lm(folder)


def read_all(path: Path) -> np.ndarray:
    """The bytes of a file in one array."""
    size = path.stat().st_size
    values = np.empty(size, np.uint8)
    with path.open("rb", buffering=0) as file:
        at = 0
        while at < size:
            at += file.readinto(values[at : at + PIECE].data) or 0
    return values


def measure_here(way: str, folder: str) -> dict[str, float]:
    """Seconds and bytes of one load, in this process."""
    if way == "transformers":
        import torch  # noqa: F401
        from transformers import AutoModelForCausalLM  # noqa: F401
    elif way == "load_pretrained_lm":
        import jax

        from converters.huggingface import load_pretrained_lm  # noqa: F401

        jax.devices()
    # A virtual machine returns freed memory to its host; getting it back would be measured too.
    np.ones(2 * (Path(folder) / "model.safetensors").stat().st_size, np.uint8).fill(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory("VmRSS")
    started, used = time.perf_counter(), time.process_time()
    held = load(way, folder)
    found = {"wall": time.perf_counter() - started, "cpu": time.process_time() - used}
    found["peak"] = memory("VmHWM") - before
    del held
    return found


def measure(way: str, folder: Path) -> dict[str, float]:
    """The same in a separate process."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.load_hf", "--child", way]
    found = subprocess.run(
        [*command, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise RuntimeError(f"{way} failed:\n{found.stderr[-2000:]}")
    return json.loads(found.stdout.splitlines()[-1])


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--rounds", type=click.IntRange(1), default=5)
@click.option(
    "--model", "models", type=click.Choice(list(SHAPES)), multiple=True, help="Default: all."
)
@click.option(
    "--place", type=click.Path(path_type=Path), help="Folder to work in (default: a new one)."
)
@click.option("--child", nargs=2, hidden=True)
def main(
    rounds: int, models: tuple[str, ...], place: Path | None, child: tuple[str, str] | None
) -> None:
    """Print medians of wall time, CPU time and peak memory, and their ratios to the plain read."""
    if child:
        click.echo(json.dumps(measure_here(*child)))
        return
    ways = [way for way in WAYS if way != "transformers" or importlib.util.find_spec("torch")]
    with tempfile.TemporaryDirectory(dir=place) as folder:
        for model in models or SHAPES:
            size = make_checkpoint(Path(folder) / model, SHAPES[model])
            read_all(Path(folder) / model / "model.safetensors")
            taken = [
                {way: measure(way, Path(folder) / model) for way in ways} for _ in range(rounds)
            ]
            click.echo(
                f"{model}: {size / 1e9:.2f} GB, median of {rounds} rounds, {processor()}\n\n"
                "| way | wall s | CPU s | wall, ratio | CPU, ratio | peak / bytes |\n"
                "| --- | ---: | ---: | ---: | ---: | ---: |"
            )
            for way in ways:
                one = {key: median(run[way][key] for run in taken) for key in taken[0][way]}
                ratios = {
                    key: median(run[way][key] / run["plain read"][key] for run in taken)
                    for key in ("wall", "cpu")
                }
                click.echo(
                    f"| {way} | {one['wall']:.2f} | {one['cpu']:.2f} | {ratios['wall']:.2f} |"
                    f" {ratios['cpu']:.2f} | {one['peak'] / size:.3f} |"
                )
            click.echo()


if __name__ == "__main__":
    main()
