"""`config.json` of a model on disk: its settings and their origins.

    {"schema_version": 1, "family": ..., "model": {...}, "optimizer": {...},
     "origins": {"model": {dotted key: origin}, "optimizer": {dotted key: origin}}}

A part without origins was not inferred: nothing of it is assumed, as for a model made here.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from efficientids_flax.config import (
    BackboneConfig,
    EfficientIDSConfig,
    OptimizerConfig,
    TimesFMConfig,
)
from efficientids_flax.parameters import ModelConfig, parameter_shapes
from efficientids_flax.settings import origins_of_leaves
from efficientids_flax.whole_files import write_whole

MODELS = {
    "transformer_lm": BackboneConfig,
    "efficientids": EfficientIDSConfig,
    "timesfm": TimesFMConfig,
}
SCHEMA = 1  # version of config.json
FILE, MANIFEST = "config.json", "manifest.json"
PARTS = ("model", "optimizer")  # the parts that have origins
LENGTH, CLUSTERING = "sequence_length", "clustering"  # keys of `training_of`
# The word in an older manifest, from before `config.json` had origins -> the origin.
FORMER = {"flag": "given", "default": "assumed", "tree": "tree", "dump": "dump"}

Origins = Mapping[str, Mapping[str, str]]
"""'model' or 'optimizer' -> dotted key -> origin, see `efficientids_flax.settings`."""


class Config(NamedTuple):
    """Content of `config.json`.

    Attributes:
        family: name of the table that made the parameter tree.
        model: the model's configuration; None for a generic tree.
        optimizer: what is known of the optimizer; None if nothing is.
        origins: 'model' and 'optimizer' -> dotted key -> where the value came from. An absent part
            was not inferred, but made or read as a whole: nothing of it is assumed.
    """

    family: str
    model: ModelConfig | None
    optimizer: OptimizerConfig | None
    origins: Origins = {}  # noqa: RUF012 (nobody changes it, and it can be pickled)


def load_config(path: str | os.PathLike[str]) -> Config:
    """The configuration of a converted or exported model.

    Args:
        path: directory of the model.

    Raises:
        FileNotFoundError: there is no finished conversion or export.
        ValueError: `config.json` is not valid, or of an unknown schema.
    """
    return _config(epath.Path(path), _read(path))


def _config(root: epath.Path, found: Mapping[str, Any]) -> Config:
    """The content of `config.json`, as configurations."""
    file = root / FILE
    family, model, optimizer = found["family"], found["model"], found["optimizer"]
    if model is not None and family not in MODELS:
        raise ValueError(f"{file}: family {family!r} has no model; known are {', '.join(MODELS)}")
    return Config(
        family,
        MODELS[family].from_dict(model) if model is not None else None,
        OptimizerConfig.from_dict(optimizer) if optimizer is not None else None,
        _origins(found["origins"], file) if "origins" in found else _former_origins(root),
    )


def training_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What is known of the training of an exported model; empty for a conversion.

    Args:
        path: directory of an export.

    Returns:
        `step`, `sequence_length`, `clustering` (its `digest`, and what it `is`), `metrics` of the
        checkpoint; unknown ones are absent.

    Raises:
        FileNotFoundError, ValueError: see `load_config`.
    """
    return _read(path).get("training") or {}


def write_settings(
    path: str | os.PathLike[str],
    model_config: ModelConfig,
    origins: Origins,
) -> None:
    """Replace the model's settings in `config.json`, atomically: readers see the old or new file.

    Args:
        path: directory of a converted model.
        model_config: the new settings; they must have the same parameters.
        origins: as `Config.origins`. Absent keys keep their origin.

    Raises:
        FileNotFoundError, ValueError: there is no configuration of such a model, see
            `load_config`; or `origins` does not have this form.
    """
    root, content = epath.Path(path), _read(path)
    before = _config(root, content)
    if before.model is None or type(model_config) is not type(before.model):
        kind = type(model_config).__name__
        raise ValueError(f"{root / FILE}: family {before.family!r} has no {kind}")
    if parameter_shapes(model_config) != parameter_shapes(before.model):
        raise ValueError(f"{root / FILE}: a model of these settings has other parameters")
    given = _origins(origins, "origins")
    configs = {"model": model_config, "optimizer": before.optimizer}
    after = {
        part: origins_of_leaves(config.to_dict(), given.get(part, {}), before.origins.get(part, {}))
        for part, config in configs.items()
        if config is not None and (part in given or part in before.origins)
    }
    write_config(root, {**content, "model": model_config.to_dict(), "origins": after})


def document(config: Config) -> dict[str, Any]:
    """The content of `config.json` for a configuration, as JSON values."""
    return {
        "schema_version": SCHEMA,
        "family": config.family,
        "model": config.model.to_dict() if config.model else None,
        "optimizer": config.optimizer.to_dict() if config.optimizer else None,
        "origins": config.origins,
    }


def write_config(root: epath.Path, content: Mapping[str, Any]) -> None:
    """Write `config.json` atomically."""
    write_whole(root / FILE, json.dumps(content, indent=2))


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The document; checked to have a known schema and all required keys."""
    file = epath.Path(path) / FILE
    if not file.exists():
        what = "no config.json; give the OUT directory of convert-paxml or of efficientids export"
        if any(file.parent.glob("checkpoint_*/")):
            what = "checkpoints of a PAXml job; convert them (convert-paxml), and give its OUT"
        elif any(file.parent.glob("*/state/_METADATA")):
            what = "checkpoints of a run; give what `efficientids export --config FILE OUT` writes"
        raise FileNotFoundError(f"{path}: {what}")
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{file}: is no JSON: {error}") from error
    if found.get("schema_version") != SCHEMA:
        raise ValueError(
            f"{file}: schema {found.get('schema_version')!r} is not {SCHEMA}; it was written by "
            "another version of efficientids_flax"
        )
    if missing := [key for key in ("family", *PARTS) if key not in found]:
        raise ValueError(f"{file}: {' and '.join(missing)} missing; was it edited?")
    return found


def _origins(found: Any, where: object) -> dict[str, dict[str, str]]:
    """Origins, checked to be part -> key -> text."""
    if not isinstance(found, Mapping) or not set(found) <= set(PARTS):
        raise ValueError(f"{where}: expected origins of {' and '.join(PARTS)}, found {found!r}")
    for part, origins in found.items():
        texts = isinstance(origins, Mapping) and all(
            isinstance(text, str) for text in origins.values()
        )
        if not texts:
            raise ValueError(
                f"{where}: origins of {part}: expected a word for each key, found {origins!r}"
            )
    return {part: dict(origins) for part, origins in found.items()}


def _former_origins(root: epath.Path) -> dict[str, dict[str, str]]:
    """Origins from the manifest of an older conversion; empty if there is none."""
    file = root / MANIFEST
    if not file.exists():
        return {}
    try:
        told = json.loads(file.read_text()).get("config") or {}
    except ValueError:
        return {}  # a damaged manifest is no error: it only tells how the output was made
    found: dict[str, dict[str, str]] = {}
    for part in PARTS:
        for key, cause in (told.get(part) or {}).items():
            if isinstance(cause, Mapping) and cause.get("from") in FORMER:
                found.setdefault(part, {})[key] = FORMER[cause["from"]]
    return found
