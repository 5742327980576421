"""Makes the configuration of converted parameters and checks it against their shapes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from converters.arrays import LeafSpec
from converters.errors import MappingError, UnclearModelError, UnsupportedModelError
from converters.paxml.forecasters import infer_forecaster
from converters.paxml.infer import Published, infer_model
from converters.plan.additions import kept_additions
from converters.rules import RuledTree
from efficientids_flax.config import EfficientIDSConfig, OptimizerConfig, TimesFMConfig
from efficientids_flax.parameters import BACKBONE, DECODER, QUANTIZED, ModelConfig, shape_problems
from efficientids_flax.settings import assumed_lines

CONFIGURED = ("transformer_lm", "efficientids", "timesfm")  # families with a configuration
FORECASTER = "timesfm"


def named_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Put `optimizer.` before bare names that only the optimizer has, such as beta1."""
    own = OptimizerConfig.__dataclass_fields__
    return {
        f"optimizer.{key}" if key.partition(".")[0] in own and "." not in key else key: value
        for key, value in overrides.items()
    }


def model_config(
    family: str,
    specs: Mapping[str, LeafSpec],
    dump: Mapping[str, Any] | None,
    overrides: dict[str, Any],
    asked_for: bool,
    tree: RuledTree,
    notes: list[str],
    published: Published | None = None,
) -> tuple[ModelConfig | None, dict[str, Any]]:
    """Infer the model's configuration and the origin of each value; check the tree against it.

    If the model has settings that ours does not compute, only its weights are converted.

    Args:
        family: one of `CONFIGURED`.
        specs: leaf path -> description of every parameter.
        dump: PAXml's own description of the job, if there is one.
        overrides: the user's values, by dotted name.
        asked_for: whether the user named the family; if so, a missing configuration is an error.
        tree: the parameters after the family's rules.
        notes: receives what the user should know.
        published: settings from published experiments.

    Raises:
        MappingError: the overrides contradict the tree or are invalid.
        UnclearModelError: tree and dump do not describe one model of the family.
    """
    if family == FORECASTER:
        return _forecaster(specs, overrides, tree, notes, published)
    try:
        found = infer_model(specs, family, dump, overrides, published)
    except UnsupportedModelError as error:
        if asked_for:
            raise
        notes.append(f"config.json has no model, only the weights are converted: {error}")
        told = infer_model(specs, family, None, {})
        _check_parameters(_as_laid_out(told.config, tree), tree)
        return None, {}
    except UnclearModelError as error:
        quantized = any(leaf.target.endswith(QUANTIZED) for leaf in tree.leaves)
        if asked_for or not quantized:
            raise
        notes.append(
            "config.json has no model, only the weights are converted: their quantized values are "
            f"packed, or scaled in blocks; {error}"
        )
        return None, {}
    config = _as_laid_out(found.config, tree)
    _check_parameters(config, tree)
    notes += found.notes
    return config, found.provenance


def refuse_overrides(family: str, overrides: Mapping[str, Any]) -> None:
    """Raise `MappingError` if there are model overrides for a family that has no configuration."""
    extra = [key for key in overrides if not key.startswith("optimizer.")]
    if extra:
        raise MappingError(f"--set {', '.join(extra)}: family {family} has no configuration to set")


def origins_of(
    provenance: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, dict[str, str]]:
    """'model' and 'optimizer' -> dotted key -> origin; parts without any key are left out."""
    return {
        part: {key: cause["from"] for key, cause in causes.items()}
        for part, causes in provenance.items()
        if causes
    }


def refuse_assumed(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `MappingError` if settings that change activations or logits are assumed."""
    if lines := assumed_lines({"forward": found.get("forward", {})}):
        raise MappingError("\n  ".join(["--strict: not all settings are known:", *lines]))


def _forecaster(
    specs: Mapping[str, LeafSpec],
    overrides: Mapping[str, Any],
    tree: RuledTree,
    notes: list[str],
    published: Published | None,
) -> tuple[ModelConfig | None, dict[str, Any]]:
    own = {key: value for key, value in overrides.items() if not key.startswith("optimizer.")}
    lora, reason = kept_additions(tree)
    config, provenance = infer_forecaster(specs, own, published, lora)
    if reason is not None:
        notes.append(
            f"config.json has no model, only the weights are converted: {reason}; without"
            " --keep-lora they are put into the weights"
        )
        return None, {}
    config = _as_laid_out(config, tree)
    _check_parameters(config, tree)
    return config, provenance


def _as_laid_out(config: ModelConfig, tree: RuledTree) -> ModelConfig:
    """The configuration with its layers stacked or separate, as they are in the output."""
    prefix = DECODER if isinstance(config, TimesFMConfig) else BACKBONE
    names = [leaf.target.removeprefix(prefix).split("/") for leaf in tree.leaves]
    scanned = any(name[0] == "layers" for name in names)
    blocks = {name[1] for name in names if name[0] == "layers" and name[1].startswith("block_")}
    if isinstance(config, TimesFMConfig):
        return replace(config, scan_layers=scanned)
    try:
        return with_backbone(config, scan_layers=scanned, layers_per_block=max(len(blocks), 1))
    except ValueError as error:
        raise UnclearModelError(f"layers cannot be stacked so: {error}") from error


def with_backbone(config: ModelConfig, **values: Any) -> ModelConfig:
    """The configuration with some fields of its decoder replaced."""
    if isinstance(config, EfficientIDSConfig):
        return replace(config, backbone=replace(config.backbone, **values))
    return replace(config, **values)


def _check_parameters(config: ModelConfig, tree: RuledTree) -> None:
    """Raise `UnclearModelError` unless the configured model has exactly these parameters."""
    found = {
        leaf.target: leaf.array.shape for leaf in tree.leaves if not leaf.target.endswith(QUANTIZED)
    }
    problems = shape_problems(config, found)
    if problems:
        head = f"the parameters are not those of one model, {len(problems)} problem(s):"
        advice = "Convert with --family generic to keep them as they are."
        raise UnclearModelError("\n  ".join([head, *problems[:20], advice]))
