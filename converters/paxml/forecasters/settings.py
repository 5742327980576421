"""Infers a forecaster's configuration from tree, public checkpoints and flags, with origins.

The sources, from the weakest to the strongest: what is usual ('assumed'), a public checkpoint of
these sizes, a flag, the tree's shapes. Shapes cannot be overruled.
"""

from collections.abc import Mapping
from typing import Any

from converters.arrays import LeafSpec
from converters.errors import MappingError, UnclearModelError
from converters.paxml.forecasters.sizes import forecaster_facts
from converters.paxml.infer import Published, read_flags
from converters.paxml.infer.facts import Facts
from converters.paxml.infer.model import provenance
from efficientids_flax.config import LoraConfig, TimesFMConfig
from efficientids_flax.config.forecaster import DECILES
from efficientids_flax.settings import ASSUMED, GIVEN, TREE
from efficientids_flax.tree import unflatten

CONTEXT = 512  # points; the default of the first release and of `TimesFmHparams`
# Numbers of quantiles to try if no source gives one; the public models have nine.
COUNTS = (9, 19, 7, 5, 3, 4, 6, 8, 2, 1, 0)
Told = tuple[Any, str]  # a value and its origin


def infer_forecaster(
    specs: Mapping[str, LeafSpec],
    overrides: Mapping[str, Any],
    published: Published | None = None,
    lora: LoraConfig | None = None,
) -> tuple[TimesFMConfig, dict[str, dict[str, Any]]]:
    """Infer the configuration of the forecaster that the parameters belong to.

    Args:
        specs: canonical leaf path -> description; only leaves below `mdl_vars/params/` are used.
        overrides: key of `TimesFMConfig` -> value, or its JSON text.
        published: settings of a public checkpoint, from `published`.
        lora: configuration of LoRA weights that are kept beside the weights.

    Returns:
        The configuration, and dotted key -> {"value", "from"}.

    Raises:
        MappingError: unknown or invalid flags, or flags that contradict the tree.
        UnclearModelError: the tree is not that of one model.
    """
    tree = forecaster_facts(specs)
    wrong: list[str] = []
    flags = read_flags(TimesFMConfig, overrides, wrong)
    for key, value in flags.items():
        fact = tree.known.get(key)
        if fact is not None and fact.sure and fact.value != value:
            wrong.append(
                f"{key}: the tree has {fact.value!r} ({fact.where}), a flag says {value!r}"
            )
    if not wrong and not tree.problems:
        wrong += _ends_wrong(tree.known["outputs"].value, flags)
    if wrong:
        raise MappingError(_listed([*wrong, *tree.problems]))
    if tree.problems:
        raise UnclearModelError(_listed(tree.problems))
    told = _chosen(tree, flags, published)
    if lora is not None:
        told["lora"] = lora.to_dict(), TREE
    try:
        values = {key: value for key, (value, _) in told.items()}
        config = TimesFMConfig.from_dict(unflatten(values, separator="."))
    except ValueError as error:
        kind = MappingError if flags else UnclearModelError
        raise kind(f"the inferred configuration is not valid: {error}") from error
    # All models of the class agree on what neither a flag nor a public checkpoint changes.
    origins = {key: origin for key, (_, origin) in told.items()}
    return config, provenance(config, origins, TREE)


def _chosen(tree: Facts, flags: Mapping[str, Any], published: Published | None) -> dict[str, Told]:
    known = {key: fact.value for key, fact in tree.known.items()}
    outputs, patch = known.pop("outputs"), known["patch_length"]
    said: dict[str, Told] = {
        "use_positional_embedding": (True, ASSUMED),
        "context_length": (max(CONTEXT // patch, 1) * patch, ASSUMED),
    }
    if published is not None:
        said |= {key: (value, published.origin) for key, value in published.model.items()}
    said |= {key: (value, GIVEN) for key, value in flags.items()}
    said |= {key: (value, TREE) for key, value in known.items() if key not in flags}
    return said | _ends(outputs, patch, said)


def _ends(outputs: int, patch: int, said: Mapping[str, Told]) -> dict[str, Told]:
    """Horizon H and number of quantiles Q; the tree only shows the product H (1 + Q)."""
    horizon, levels = said.get("horizon_length"), said.get("quantiles")
    if not _are_levels(levels) or not _is_length(horizon):
        # A flag has the wrong type; the configuration will refuse it.
        return {} if horizon is not None else {"horizon_length": (1, ASSUMED)}
    given = [told for told in (horizon, levels) if told is not None and told[1] == GIVEN]
    if horizon and levels and horizon[0] * (1 + len(levels[0])) == outputs:
        return {"horizon_length": horizon, "quantiles": levels}
    if levels is not None and given == [levels]:
        return {"horizon_length": (outputs // (1 + len(levels[0])), TREE), "quantiles": levels}
    if horizon is not None and given == [horizon]:
        count = outputs // horizon[0] - 1
        return {"horizon_length": horizon, "quantiles": (_levels(count), ASSUMED)}
    counts = [count for count in COUNTS if outputs % (1 + count) == 0]
    if outputs % (1 + len(DECILES)):  # prefer a horizon of whole patches
        counts.sort(key=lambda count: outputs // (1 + count) % patch != 0)
    count = counts[0]
    return {
        "horizon_length": (outputs // (1 + count), ASSUMED),
        "quantiles": (_levels(count), ASSUMED),
    }


def _ends_wrong(outputs: int, flags: Mapping[str, Any]) -> list[str]:
    """A sentence if the user's horizon or quantiles do not fit the tree."""
    horizon, levels = flags.get("horizon_length"), flags.get("quantiles")
    if isinstance(levels, list | tuple):
        count = 1 + len(levels)
        if outputs % count or (isinstance(horizon, int) and horizon * count != outputs):
            own = f"horizon_length {horizon} and " if horizon is not None else ""
            return [
                f"quantiles: {own}{len(levels)} quantiles and the mean do not make the"
                f" {outputs} outputs of a patch (horizon_ff_layer/output_layer)"
            ]
    elif isinstance(horizon, int) and (horizon < 1 or outputs % horizon):
        return [
            f"horizon_length: {horizon} does not divide the {outputs} outputs of a patch"
            " (horizon_ff_layer/output_layer)"
        ]
    return []


def _are_levels(told: Told | None) -> bool:
    return told is None or isinstance(told[0], list | tuple)


def _is_length(told: Told | None) -> bool:
    return told is None or (isinstance(told[0], int) and told[0] > 0)


def _levels(count: int) -> tuple[float, ...]:
    """Levels for `count` quantiles: the public ones if they are as many, else evenly spread."""
    if count == len(DECILES):
        return DECILES
    return tuple(round((number + 1) / (count + 1), 6) for number in range(count))


def _listed(problems: list[str]) -> str:
    head = f"the forecaster's configuration cannot be inferred, {len(problems)} problem(s):"
    return "\n  ".join([head, *problems[:20]])
