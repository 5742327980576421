"""Layers that differ: the settings that turn the model's configuration into a layer's."""

from collections.abc import Iterator, Mapping
from typing import Any

from efficientids_flax.config.backbone import BackboneConfig
from efficientids_flax.config.checks import SHARED
from efficientids_flax.config.parts import LayerSetting


def layer_settings(
    model: BackboneConfig, layers: Mapping[int, BackboneConfig]
) -> tuple[LayerSetting, ...]:
    """The settings in which layers differ from the model: inverse of `BackboneConfig.of_layer`.

    Args:
        model: the configuration of the model.
        layers: index -> configuration of a layer that may differ; the index in the block if layers
            are scanned.
    """
    base = dict(_leaves(model.to_dict()))
    places: dict[tuple[str, str], tuple[Any, list[int]]] = {}
    for layer, own in layers.items():
        for key, value in _leaves(own.to_dict()):
            shared = key.partition(".")[0] in SHARED or key.startswith("norms.final")
            if not shared and not (key in base and base[key] == value):
                places.setdefault((key, repr(value)), (value, []))[1].append(layer)
    count = model.num_layers
    period = model.layers_per_block if model.scan_layers else count
    return tuple(
        LayerSetting(tuple(i for i in range(count) if i % period in own), key, value)
        for (key, _), (value, own) in places.items()
    )


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested dictionary."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
