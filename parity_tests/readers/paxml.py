"""Reads folders of plain Praxis language models: `reference.npz`, `expected_next_state.npz`."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests.readers.settings import settings_of
from parity_tests.recording import (
    MANIFEST,
    Arrays,
    Pass,
    Recording,
    Step,
    read_arrays,
    read_json,
)

NEXT = "expected_next_state.npz"
LOSS = "train_step/loss"  # loss of the step from the checkpoint's state to the next one
VARIABLES = "mdl_vars/"
NAMES = "praxis"
_KEY = re.compile(r"\['([^']*)'\]|\[(\d+)\]|\.(\w+)")


def read_paxml(root: Path, arrays: Arrays) -> Recording:
    """Read a folder; the values belong to the checkpoint in it.

    Args:
        root: the folder.
        arrays: the arrays of its `reference.npz`.
    """
    manifest = read_json(root / MANIFEST)
    dtype = manifest.get("fprop_dtype") or "float32"
    if dtype == "float64":  # NumPy turns a dtype of None into float64; Praxis means float32
        dtype = "float32"
    inputs = below(arrays, "in/")
    one = Pass(
        "",
        inputs,
        activations={call_name(path(key)): v for key, v in below(arrays, "act/").items()},
        outputs=below(arrays, "out/"),
        metrics=pairs(below(arrays, "metric/")),
        dtype=dtype,
    )
    steps = ()
    if (root / NEXT).is_file():
        after = {path(key): value for key, value in read_arrays(root / NEXT).items()}
        steps = (Step(1, inputs, {}, below(after, VARIABLES), arrays.get(LOSS)),)
    return Recording(
        str(root),
        origin=f"paxml {manifest.get('versions', {}).get('paxml', '')}".strip(),
        names=NAMES,
        model="language_model",
        passes=(one,),
        steps=steps,
        dtype=dtype,
        settings=settings_of(manifest, recommender=False),
        **about(manifest),
    )


def about(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the manifest says for people."""
    return {
        "versions": manifest.get("versions", {}),
        "seed": manifest.get("seed"),
        "checkpoint": "checkpoint",
        "notes": str(manifest.get("note") or manifest.get("doc") or ""),
    }


def below(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The arrays whose keys begin with a prefix, without the prefix."""
    return {key[len(prefix) :]: v for key, v in arrays.items() if key.startswith(prefix)}


def pairs(metrics: Arrays) -> dict[str, np.ndarray]:
    """Turn `name` -> [value, weight] into `name/value` and `name/weight`."""
    return {
        f"{name}/{part}": both[place]
        for name, both in metrics.items()
        for place, part in enumerate(("value", "weight"))
    }


def path(key: str) -> str:
    """Turn `['lm']['x'][0]` and `.mdl_vars['params']` into `lm/x/0` and `mdl_vars/params`."""
    parts = ["".join(found) for found in _KEY.findall(key)]
    return "/".join(parts) if parts else key


def call_name(name: str) -> str:
    """Turn `layer/__call__/0/1` (first call, second result) into `layer/1`, later calls: `#n`."""
    head, call, rest = f"/{name}".partition("/__call__/")
    if not call:
        return name
    number, _, inner = rest.partition("/")
    place = head.lstrip("/") + (f"#{number}" if int(number) else "")
    return f"{place}/{inner}".strip("/") if inner else place
