"""Reads folders of recorded TimesFM models: `reference.npz`, and the description of the model.

Letters: B series, T points, P points in a patch.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parity_tests.readers.paxml import NEXT, VARIABLES, below, path
from parity_tests.recording import (
    MANIFEST,
    Arrays,
    Recording,
    RecordingError,
    read_arrays,
    read_json,
)

REFERENCE, MARK, CONFIG = "reference.npz", "in/input_ts", "config.json"
# fmt: off
SETTINGS = {
    # `config` of the manifest   ours
    "patch_len":                 "patch_length",
    "horizon_len":               "horizon_length",
    "quantiles":                 "quantiles",
    "use_pos_emb":               "use_positional_embedding",
    "context_len":               "context_length",
}
# The same for transformers' config.json; its statistics are centred.
PORTED = {
    "patch_length":              "patch_length",
    "horizon_length":            "horizon_length",
    "quantiles":                 "quantiles",
    "use_positional_embedding":  "use_positional_embedding",
    "context_length":            "context_length",
}
LEARNER = ("learning_rate", "epsilon", "clip_threshold", "ema_decay", "beta1", "beta2",
           "weight_decay", "clip_gradient_norm_to_value", "bprop_variable_exclusion")
# Defaults of Praxis (`optimizers.Adam`, 1.4.0) for what a description leaves out.
DEFAULTS = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6, "clip_threshold": 1.0}
# fmt: on
_CONSTANT = re.compile(r"constant(?: (\S+))?", re.IGNORECASE)
_DECAY = re.compile(r"(cosine|linear) (\S+) to (\S+) in (\d+) steps", re.IGNORECASE)


@dataclass(frozen=True)
class ForecasterRecording:
    """What was recorded from one forecaster.

    Attributes:
        path: path of the folder.
        origin: program and version, for people.
        arrays: all arrays of `reference.npz`.
        told: recorded run -> how it was made, in the recording's words.
        settings: keys of our configuration -> value; those of the learner begin with `optimizer.`.
        after: PAXml's name of a parameter, below `params/` -> its value after the next step; empty
            if no step is recorded.
        frequency: frequency of all series, for a recording that has none per series.
    """

    path: str
    origin: str
    arrays: Arrays
    told: Mapping[str, str]
    settings: Mapping[str, Any]
    after: Arrays = field(default_factory=dict)
    frequency: int = 0

    @property
    def described(self) -> Recording:
        """The settings as a `Recording`, the form of other models."""
        return Recording(self.path, self.origin, "praxis", "forecaster", (), settings=self.settings)

    def groups(self, kind: str) -> list[str]:
        """Names of the recorded runs that begin with `kind`: 'decode', or 'api/'."""
        heads = dict.fromkeys(name.rpartition("/")[0] for name in self.arrays)
        return [head for head in heads if head.startswith(kind) and not head.startswith("api/in")]


def is_forecaster(against: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a recording of a forecaster."""
    place = Path(against) / REFERENCE
    return place.is_file() and MARK in read_arrays(place)


def read_forecaster(against: str | os.PathLike[str]) -> ForecasterRecording:
    """Read a folder.

    Raises:
        RecordingError: something in it is missing or damaged.
    """
    root = Path(against)
    arrays = read_arrays(root / REFERENCE)
    if MARK not in arrays:
        raise RecordingError(f"{root / REFERENCE}: not of a forecaster; it has no {MARK}")
    if not (root / MANIFEST).is_file() and (root / CONFIG).is_file():
        return _ported(root, arrays)
    manifest = read_json(root / MANIFEST)
    config = manifest.get("config") or {}
    settings = {ours: config[name] for name, ours in SETTINGS.items() if name in config}
    learner = config.get("learner")
    if isinstance(learner, Mapping):
        settings |= {f"optimizer.{key}": value for key, value in _learner(learner).items()}
    after: dict[str, Any] = {}
    if (root / NEXT).is_file():
        state = {path(key): value for key, value in read_arrays(root / NEXT).items()}
        after = below(below(state, VARIABLES), "params/")
    versions = manifest.get("versions", {})
    names = ("timesfm", "paxml")
    origin = " on ".join(f"{name} {versions[name]}" for name in names if name in versions)
    told = {name: str(text) for name, text in (manifest.get("recorded") or {}).items()}
    return ForecasterRecording(
        str(root), origin, arrays, told, settings, after, int(config.get("freq") or 0)
    )


def _ported(root: Path, arrays: Arrays) -> ForecasterRecording:
    """Read a folder of transformers' port."""
    config = read_json(root / CONFIG)
    settings = {ours: config[name] for name, ours in PORTED.items() if name in config}
    origin = f"transformers {config.get('transformers_version', '')}".strip()
    return ForecasterRecording(str(root), origin, arrays, {}, settings)


def _learner(learner: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `OptimizerConfig` that the description gives, or for which Praxis has a default."""
    found: dict[str, Any] = dict(DEFAULTS)
    found |= {name: learner[name] for name in LEARNER if name in learner}
    schedule = _schedule(str(learner.get("lr_schedule", "")))
    return found if schedule is None else {**found, "schedule": schedule}


def _schedule(text: str) -> dict[str, Any] | None:
    """Parse the description of a schedule; None if it is not understood."""
    if constant := _CONSTANT.fullmatch(text):
        return {"kind": "constant", "parameters": {"value": float(constant[1] or 1.0)}}
    decay = _DECAY.fullmatch(text)
    if decay is None:
        return None
    first, last, steps = float(decay[2]), float(decay[3]), int(decay[4])
    if decay[1].lower() == "linear":
        return {"kind": "linear", "parameters": {"start": [0, first], "limit": [steps, last]}}
    parameters = {"initial_value": first, "final_value": last, "total_steps": steps}
    return {"kind": "cosine", "parameters": parameters}
