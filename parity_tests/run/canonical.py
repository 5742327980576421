"""Names of our intermediate values, the same for every way of storing a model."""

from collections.abc import Collection, Mapping
from typing import Any

from efficientids_flax.config import BackboneConfig
from efficientids_flax.tree import flatten

BACKBONE = "pretrained_lm/"


def canonical(
    intermediates: Mapping[str, Any],
    config: BackboneConfig,
    only: Collection[str] | None = None,
) -> dict[str, Any]:
    """Path -> value, with each layer under its number, whether layers are scanned or not.

    The decoder's paths have no `pretrained_lm`. A module's output is at the module's path; only its
    first call counts. `hidden_states/n` have the meaning they have in HuggingFace. With `only`,
    stacked values of layers are taken apart only for these paths.
    """
    states = ["layer_input", *(f"layers_{i}" for i in range(config.num_layers))]
    if config.final_norm:
        states[-1] = "final_norm"
    wanted = None if only is None else {*only, *states}
    found: dict[str, Any] = {}
    for name, calls in flatten(intermediates).items():
        path = name.removesuffix("/__call__").removesuffix("__call__")
        path = path.removeprefix(BACKBONE)
        value = calls[0]
        while isinstance(value, tuple) and not hasattr(value, "_fields"):
            value = value[0]  # a scanned layer returns (hidden states, nothing)
        if not hasattr(value, "shape"):
            continue
        if path == "layers" or path.startswith("layers/"):
            found |= _unstacked(path, value, config, wanted)
        else:
            found[path] = value
    for place, name in enumerate(states):
        if name in found:
            found[f"hidden_states/{place}"] = found[name]
    return found


def _unstacked(
    path: str, value: Any, config: BackboneConfig, wanted: Collection[str] | None
) -> dict[str, Any]:
    """A value of stacked layers, as one value per layer."""
    rest = path.removeprefix("layers").lstrip("/")
    count, place = config.layers_per_block, config.layers_per_block - 1
    if count > 1 and rest.startswith("block_"):
        block, _, rest = rest.partition("/")
        place = int(block.removeprefix("block_"))
    tail = f"/{rest}" if rest else ""
    names = [f"layers_{step * count + place}{tail}" for step in range(len(value))]
    return {
        name: value[step] for step, name in enumerate(names) if wanted is None or name in wanted
    }
