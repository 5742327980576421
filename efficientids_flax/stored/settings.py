"""`config.json` of a model on disk: its settings, and where each of them came from.

    {"schema_version": 1, "family": ..., "model": {...}, "optimizer": {...},
     "origins": {"model": {dotted key: origin}, "optimizer": {dotted key: origin}}}

Where a part has no origins its settings are just so: those of a model that was made here.
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
SCHEMA = 1  # of config.json
FILE, MANIFEST = "config.json", "manifest.json"
PARTS = ("model", "optimizer")  # what has origins
LENGTH, CLUSTERING = "sequence_length", "clustering"  # of `training_of`
# What manifests before there were origins called them.
FORMER = {"flag": "given", "default": "assumed", "tree": "tree", "dump": "dump"}

Origins = Mapping[str, Mapping[str, str]]
"""'model' and 'optimizer' -> dotted key -> origin, see `efficientids_flax.settings`."""


class Config(NamedTuple):
    """Content of `config.json`.

    Attributes:
        family: name of the table that made the parameter tree.
        model: the model's configuration; None for a generic tree.
        optimizer: what is known of the optimizer; None if nothing is.
        origins: 'model' and 'optimizer' -> dotted key -> where the value came from. A part that is
            not there was not inferred, but made or read as a whole: nothing of it is assumed.
    """

    family: str
    model: ModelConfig | None
    optimizer: OptimizerConfig | None
    origins: Origins = {}  # noqa: RUF012 (nobody changes it, and it can be pickled)


def load_config(path: str | os.PathLike[str]) -> Config:
    """The configuration beside converted weights.

    Args:
        path: directory that `convert-paxml` made.

    Raises:
        FileNotFoundError: no finished conversion is there.
        ValueError: its `config.json` is none, or of an unknown schema.
    """
    return _config(epath.Path(path), _read(path))


def _config(root: epath.Path, found: Mapping[str, Any]) -> Config:
    """What a document of `config.json` says."""
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
    """What is known of the training of a model that was trained here; nothing of a conversion.

    Args:
        path: directory of an export.

    Returns:
        `step`, `sequence_length`, `clustering` (its `digest`, and what it `is`), `metrics` of the
        checkpoint; what is not known is not there.

    Raises:
        FileNotFoundError, ValueError: see `load_config`.
    """
    return _read(path).get("training") or {}


def write_settings(
    path: str | os.PathLike[str],
    model_config: ModelConfig,
    origins: Origins,
) -> None:
    """Put other settings of the model into `config.json`; a reader sees the old or the new file.

    Args:
        path: directory that `convert-paxml` made.
        model_config: with the settings that are to be; those of the same parameters.
        origins: as `Config.origins`. Keys that are not in it keep the origin that they have.

    Raises:
        FileNotFoundError, ValueError: no configuration of such a model is there, see
            `load_config`; or `origins` has not that form.
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
    """The content of `config.json`."""
    return {
        "schema_version": SCHEMA,
        "family": config.family,
        "model": config.model.to_dict() if config.model else None,
        "optimizer": config.optimizer.to_dict() if config.optimizer else None,
        "origins": config.origins,
    }


def write_config(root: epath.Path, content: Mapping[str, Any]) -> None:
    """Write `config.json`, whole or not at all."""
    write_whole(root / FILE, json.dumps(content, indent=2))


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The document, of a schema that is known and with all that it must have."""
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
    """Origins, checked: texts by key, below the parts that have them."""
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
    """What the manifest of an older conversion says; nothing where there is none."""
    file = root / MANIFEST
    if not file.exists():
        return {}
    try:
        told = json.loads(file.read_text()).get("config") or {}
    except ValueError:
        return {}  # it describes how the output was made, not what it is
    found: dict[str, dict[str, str]] = {}
    for part in PARTS:
        for key, cause in (told.get(part) or {}).items():
            if isinstance(cause, Mapping) and cause.get("from") in FORMER:
                found.setdefault(part, {})[key] = FORMER[cause["from"]]
    return found
