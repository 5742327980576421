"""Reads and writes the format of a recording: a directory with `manifest.json` and `arrays.npz`.

It is documented in docs/reference/recording-format.md.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests.recording import (
    ARRAYS,
    FOUND,
    MANIFEST,
    SHARED,
    Arrays,
    Pass,
    Recording,
    RecordingError,
    Step,
    find_clustering,
    is_recording,
    listed,
    read_arrays,
    read_json,
)

SCHEMA = 1
KINDS = (*SHARED, *FOUND)
STEP_KINDS = ("inputs", "gradients", "parameters")
MODELS = ("language_model", "recommender")
FORMAT = ("schema_version", "mode", "passes", "same")  # fields about the format of the arrays
TOLERANCES = ("activations", "loss", "gradients", "parameters")
EXACT = "float32"  # prefix of values that a half-precision model computes in float32
# Field of a manifest -> (type, default); `...` if the field is required.
FIELDS: Mapping[str, tuple[type | tuple[type, ...], Any]] = {
    "schema_version": (int, ...),
    "origin": (str, ...),
    "names": (str, ...),
    "model": (str, ...),
    "versions": (dict, {}),
    "seed": ((int, type(None)), None),
    "dtype": (str, "float32"),
    "tolerances": ((dict, type(None)), None),
    "settings": (dict, {}),
    "config": (object, None),
    "checkpoint": ((str, type(None)), None),
    "mode": (str, "train"),
    "passes": (dict, {}),
    "same": (dict, {}),
    "ends_at_checkpoint": (bool, False),
    "notes": (str, ""),
}
# Names of batch fields in other libraries -> ours.
FOREIGN = {
    "input_ids": "ids",
    "attention_mask": "paddings, which is 1 - attention_mask",
    "position_ids": "segment_pos",
}
MODES = ("train", "eval")
DTYPES = ("float32", "bfloat16", "float16", "float64")


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Read and check a recording in the documented format.

    Raises:
        RecordingError: lists every missing or unknown field of the manifest, and every key of the
            arrays that the format does not have.
    """
    root = Path(path)
    manifest = _read_manifest(root / MANIFEST)
    arrays = read_arrays(root / ARRAYS)
    problems: list[str] = []
    _repeat(arrays, manifest, problems)
    passes = _passes(manifest, arrays, problems)
    steps, start = _steps(arrays, problems)
    if problems:
        raise RecordingError(listed(f"{root / ARRAYS}", problems))
    return Recording(
        str(root),
        passes=passes,
        steps=steps,
        start=start,
        clustering=find_clustering(root),
        **{key: manifest[key] for key in FIELDS if key not in FORMAT},
    )


def write_recording(path: str | os.PathLike[str], recording: Recording) -> None:
    """Write a recording in the documented format, for `read_recording`.

    Raises:
        RecordingError: the directory already has a recording, or `read_recording` would refuse it.
    """
    root = Path(path)
    if is_recording(root):
        raise RecordingError(f"{root}: holds a recording already; remove it first")
    arrays: dict[str, np.ndarray] = {}
    options: dict[str, dict[str, Any]] = {}
    for one in recording.passes:
        prefix = f"passes/{one.name}/" if one.name else ""
        if one.name:
            options[one.name] = {"mode": _mode(one), "dtype": one.dtype}
        for kind in KINDS:
            values = getattr(one, kind) or {}
            if one.name and kind in SHARED and values is (getattr(recording.passes[0], kind) or {}):
                continue
            arrays |= {f"{prefix}{kind}/{name}": value for name, value in values.items()}
            if one.exact is not None and kind not in SHARED:
                exact = getattr(one.exact, kind)
                arrays |= {f"{prefix}{EXACT}/{kind}/{name}": exact[name] for name in exact}
    for name, value in (recording.start or {}).items():
        arrays[f"steps/0/parameters/{name}"] = value
    for step in recording.steps:
        for kind in STEP_KINDS:
            for name, value in getattr(step, kind).items():
                arrays[f"steps/{step.number}/{kind}/{name}"] = value
        if step.loss is not None:
            arrays[f"steps/{step.number}/loss"] = np.asarray(step.loss)
    manifest = {key: getattr(recording, key) for key in FIELDS if hasattr(recording, key)}
    arrays, same = _stored_once(arrays)
    manifest |= {"schema_version": SCHEMA, "passes": options, "mode": _mode(recording.passes[0])}
    manifest["same"] = same
    root.mkdir(parents=True, exist_ok=True)
    (root / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    np.savez_compressed(root / ARRAYS, **arrays)  # pyright: ignore[reportArgumentType]
    read_recording(root)


def _repeat(arrays: dict[str, np.ndarray], manifest: Mapping[str, Any], found: list[str]) -> None:
    """Add arrays that are equal to another one, and therefore are not stored."""
    config = manifest["config"] if isinstance(manifest["config"], Mapping) else {}
    same = manifest["same"] or config.get("same") or {}
    found += [
        f"same: {name}: no array {other}" for name, other in same.items() if other not in arrays
    ]
    arrays |= {name: arrays[other] for name, other in same.items() if other in arrays}


def _stored_once(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays without those that repeat another one, and repeated name -> stored name."""
    kept: dict[str, np.ndarray] = {}
    same: dict[str, str] = {}
    first: dict[Any, str] = {}
    for name, value in arrays.items():
        place = (value.shape, value.dtype.str, value.tobytes())
        if value.size > 1 and place in first:
            same[name] = first[place]
        else:
            first[place] = name
            kept[name] = value
    return kept, same


def _mode(one: Pass) -> str:
    return "train" if one.train else "eval"


def _read_manifest(path: Path) -> dict[str, Any]:
    found = read_json(path)
    problems = [f"{key}: unknown field" for key in found if key not in FIELDS]
    for key, (kind, default) in FIELDS.items():
        if key not in found and default is ...:
            problems.append(f"{key}: missing")
        elif key in found and not isinstance(found[key], kind):
            problems.append(f"{key}: found {found[key]!r}, which has another type than is needed")
    values = {key: found.get(key, default) for key, (_, default) in FIELDS.items()}
    if values["schema_version"] not in (SCHEMA, ...):
        problems.append(f"schema_version: found {values['schema_version']}, {SCHEMA} is known")
    if values["model"] not in (*MODELS, ...):
        problems.append(f"model: found {values['model']!r}, expected one of {', '.join(MODELS)}")
    if values["mode"] not in MODES:
        problems.append(f"mode: found {values['mode']!r}, expected one of {', '.join(MODES)}")
    if values["dtype"] not in DTYPES:
        problems.append(f"dtype: found {values['dtype']!r}, expected one of {', '.join(DTYPES)}")
    problems += [
        f"tolerances: {key}: unknown, known are {', '.join(TOLERANCES)}"
        for key in values["tolerances"] or {}
        if key not in TOLERANCES
    ]
    if problems:
        raise RecordingError(listed(str(path), problems))
    return values


def _passes(manifest: Mapping[str, Any], arrays: Arrays, problems: list[str]) -> tuple[Pass, ...]:
    """The pass of the keys without a pass name, and one pass per name below `passes/`."""
    groups: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for key, value in arrays.items():
        if key.startswith("steps/"):
            continue
        parts = key.split("/")
        name = parts[1] if parts[0] == "passes" and len(parts) > 3 else ""
        parts = parts[2:] if name else parts
        exact = parts[0] == EXACT
        kind, rest = parts[exact], "/".join(parts[exact + 1 :])
        if kind not in KINDS or not rest or (exact and kind in SHARED):
            problems.append(f"{key}: expected [passes/<pass>/]{{{','.join(KINDS)}}}/<name>")
            continue
        if kind == "inputs" and rest in FOREIGN:
            problems.append(f"{key}: unknown field of a batch; ours is {FOREIGN[rest]}")
        place = f"{EXACT}/{kind}" if exact else kind
        groups.setdefault(name, {}).setdefault(place, {})[rest] = value
    bare = groups.pop("", {})
    if "inputs" not in bare and not all("inputs" in group for group in groups.values()):
        problems.append("inputs/<field>: missing; a recording needs the batch that was run")
    options = manifest["passes"]
    problems += [f"passes: {name} has no arrays" for name in options if name not in groups]
    if any(kind not in SHARED for kind in bare):
        groups = {"": bare, **groups}
    return tuple(
        _pass(name, {**{kind: bare[kind] for kind in SHARED if kind in bare}, **group},
              {"mode": manifest["mode"], "dtype": manifest["dtype"], **options.get(name, {})})
        for name, group in groups.items()
    )  # fmt: skip


def _pass(name: str, group: Mapping[str, Arrays], options: Mapping[str, Any]) -> Pass:
    train = options["mode"] == "train"

    def make(prefix: str, dtype: str, exact: Pass | None = None) -> Pass:
        activations, outputs, metrics, gradients = (group.get(prefix + kind, {}) for kind in FOUND)
        return Pass(
            name, group.get("inputs", {}), activations, outputs, metrics, gradients,
            group.get("parameters"), train, dtype, exact,
        )  # fmt: skip

    there = any(key.startswith(f"{EXACT}/") for key in group)
    return make("", options["dtype"], make(f"{EXACT}/", "float32") if there else None)


def _steps(arrays: Arrays, problems: list[str]) -> tuple[tuple[Step, ...], Arrays | None]:
    """The steps by number, and the parameters before them if `steps/0` has them."""
    found: dict[int, dict[str, Any]] = {}
    for key, value in arrays.items():
        if not key.startswith("steps/"):
            continue
        _, number, kind, *rest = key.split("/")
        if not number.isdigit() or not (
            (kind in STEP_KINDS and rest) or (kind == "loss" and not rest)
        ):
            problems.append(f"{key}: expected steps/<n>/{{{','.join(STEP_KINDS)}}}/<name> or loss")
            continue
        step = found.setdefault(int(number), {})
        if kind == "loss":
            step["loss"] = value
        else:
            step.setdefault(kind, {})["/".join(rest)] = value
    start = found.pop(0, {}).get("parameters")
    steps = []
    for number in sorted(found):
        given = found[number]
        problems += [
            f"steps/{number}/{kind}: missing"
            for kind in ("inputs", "parameters")
            if kind not in given
        ]
        inputs, gradients, parameters = (given.get(kind, {}) for kind in STEP_KINDS)
        steps.append(Step(number, inputs, gradients, parameters, given.get("loss")))
    return tuple(steps), start
