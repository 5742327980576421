"""Recorded jobs: text dumps, tree descriptions and the constants of the experiments behind them."""

import json
import lzma
from typing import Any

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np

from converters.arrays.leaf import LeafSpec
from converters.paxml.infer.hparams import parse_experiment, parse_sections
from efficientids_flax.config import BackboneConfig, RotaryConfig
from tests.paths import DATA

FILE = DATA / "jobs" / "jobs.json.xz"
JOBS: dict[str, Any] = json.loads(lzma.decompress(FILE.read_bytes()))
LANGUAGE_MODELS = sorted(name for name, job in JOBS.items() if "files" in job)
RECOMMENDERS = sorted(name for name, job in JOBS.items() if "experiment" in job)
# Of the job 'Llama_gda'.
LLAMA = BackboneConfig(
    vocab_size=96,
    num_layers=2,
    model_dims=32,
    hidden_dims=64,
    num_heads=4,
    num_kv_heads=4,
    head_dim=8,
    norm="rms_norm",
    norm_scale_in_float32=True,
    tied_embeddings=False,
    rotary=RotaryConfig("half_split"),
    gated_mlp=True,
    activation="silu",
)


def specs(name: str, **changes: tuple[int, ...] | None) -> dict[str, LeafSpec]:
    """The tree of a job; `changes` give leaves, by the end of their path, a shape or drop them."""
    leaves = dict(JOBS[name]["leaves"])
    for end, shape in changes.items():
        (path,) = [path for path in leaves if path.endswith(end)] or [end]
        if shape is None:
            del leaves[path]
        else:
            leaves[path] = (shape, "float32")
    return {
        path: LeafSpec(path, tuple(shape), np.dtype(dtype), tuple(shape), path)
        for path, (shape, dtype) in leaves.items()
    }


def dump(name: str) -> dict[str, Any]:
    """The dump of a job as `read_hparams` gives it."""
    job = JOBS[name]
    if "files" in job:
        values = parse_sections(job["files"]["model_params.txt"], name)[-1]
        return values | parse_experiment(job["files"]["experiment_cls_vars.txt"])
    return parse_sections(as_text(job["config"]), name)[-1]


def as_text(config: dict[str, Any]) -> str:
    """`model_params.txt` as PAXml would write it for a recorded nested configuration.

    The recordings of EfficientIDs hold no text dumps: these are made from the nested configuration
    in their manifests, by the rules of Praxis' `nested_struct_to_text`. They lack what was not set,
    which a real dump has with its default.
    """
    return "".join(f"{path} : {value}\n" for path, value in sorted(_lines(config, "")))


def _lines(value: Any, path: str) -> list[tuple[str, str]]:
    if isinstance(value, dict) and set(value) == {"array"}:
        return [(path, "ArrayImpl")]
    if isinstance(value, dict):
        inner = {"cls" if key == "__class__" else key: part for key, part in value.items()}
        return [
            line
            for key, part in inner.items()
            if not (key == "cls" and path.endswith("split_dims_mapping"))
            for line in _lines(part, f"{path}.{key}" if path else key)
        ]
    if value == []:
        return []  # Praxis goes into an empty list and finds nothing
    return [(path, _text(value, named=path.endswith("cls")))]


def _text(value: Any, *, named: bool) -> str:
    if value is None:
        return "NoneType"
    if isinstance(value, str):
        inner = value.removeprefix("<class '").removesuffix("'>")
        if named or inner != value:
            module, _, name = inner.rpartition(".")
            return f"type/{module}/{name}"
        return repr(value)
    if isinstance(value, list):
        return repr(["NoneType" if part is None else part for part in value])
    return repr(value)
