"""`config.json`: the settings of model and learner, their origins, and what of them was assumed."""

from collections.abc import Mapping
from typing import Any

from converters.errors import MappingError
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig, OptimizerConfig
from efficientids_flax.settings import assumed, assumed_lines, assumed_optimizer

CONFIG_SCHEMA_VERSION = 1
Origins = dict[str, dict[str, str]]
Assumed = dict[str, dict[str, Any]]


def origins_of(provenance: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Origins:
    """'model' and 'optimizer' -> dotted key -> origin, of those that have any."""
    return {
        part: {key: cause["from"] for key, cause in causes.items()}
        for part, causes in provenance.items()
        if causes
    }


def document(
    family: str,
    model: BackboneConfig | EfficientIDSConfig | None,
    optimizer: OptimizerConfig | None,
    origins: Origins,
) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "schema_version": CONFIG_SCHEMA_VERSION,
        "family": family,
        "model": model.to_dict() if model else None,
        "optimizer": optimizer.to_dict() if optimizer else None,
        "origins": origins,
    }


def assumed_of(
    model: BackboneConfig | EfficientIDSConfig | None,
    optimizer: OptimizerConfig | None,
    origins: Origins,
) -> Assumed:
    """'forward', 'training' and 'optimizer' -> key -> value that nothing told and that matters."""
    found: Assumed = {}
    if model is not None:
        of_model = origins.get("model", {})
        found["forward"] = assumed(model, of_model)
        found["training"] = assumed(model, of_model, "training")
    if optimizer is not None:
        found["optimizer"] = assumed_optimizer(optimizer, origins.get("optimizer", {}))
    return {part: values for part, values in found.items() if values}


def refuse_assumed(found: Assumed) -> None:
    """Raise `MappingError` for what was assumed of activations and logits (`--strict`)."""
    if lines := assumed_lines({"forward": found.get("forward", {})}):
        raise MappingError("\n  ".join(["--strict: not all settings are known:", *lines]))
