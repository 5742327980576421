"""Layers that differ from each other: their facts side by side, and the settings that follow.

Praxis' `StackedTransformer` takes a list of templates, each for as many layers in a row.
"""

from collections.abc import Mapping
from typing import Any

from converters.paxml.infer.facts import Facts, related
from efficientids_flax.config import BackboneConfig, LayerSetting
from efficientids_flax.config.checks import SHARED
from efficientids_flax.tree import flatten


def gather(facts: Facts, layers: Mapping[int, Facts]) -> None:
    """Add what single layers say: once where they agree, else to each layer's own facts.

    Args:
        facts: of the whole model.
        layers: by place in the block; a layer that does not say a key is not asked.
    """
    for own in layers.values():
        facts.problems += [text for text in own.problems if text not in facts.problems]
        facts.notes += [text for text in own.notes if text not in facts.notes]
        facts.unread |= own.unread
    for key in dict.fromkeys(key for own in layers.values() for key in own.known):
        said = {layer: own.known[key] for layer, own in layers.items() if key in own.known}
        silent = (own.known for layer, own in layers.items() if layer not in said)
        apart = any(related(key, other) for known in silent for other in known) or any(
            key in own.excluded and own.excluded[key].value == fact.value
            for own in layers.values()
            for fact in said.values()
        )
        same = key.partition(".")[0] in SHARED or key == "moe.layers"
        values = [fact.value for fact in said.values()]
        if same or (not apart and all(value == values[0] for value in values)):
            for fact in said.values():
                facts.add(key, fact.value, fact.where, sure=fact.sure)
        else:
            for layer, fact in said.items():
                facts.layers.setdefault(layer, Facts()).known[key] = fact
    for key in dict.fromkeys(key for own in layers.values() for key in own.excluded):
        every = [own.excluded[key] for own in layers.values() if key in own.excluded]
        if len(every) == len(layers):
            facts.excluded[key] = every[-1]
            continue
        for layer, own in layers.items():
            if key in own.excluded:
                facts.layers.setdefault(layer, Facts()).excluded[key] = own.excluded[key]


def layer_settings(
    model: BackboneConfig, layers: Mapping[int, BackboneConfig]
) -> tuple[LayerSetting, ...]:
    """What layers have otherwise than the model.

    Args:
        model: the configuration of the model.
        layers: that of layers that may differ, by the place in the block.
    """
    base = flatten(model.to_dict(), separator=".", keep_empty=True)
    places: dict[tuple[str, str], tuple[Any, list[int]]] = {}
    for layer, own in layers.items():
        for key, value in flatten(own.to_dict(), separator=".", keep_empty=True).items():
            shared = key.partition(".")[0] in SHARED or key.startswith("norms.final")
            if shared or (key in base and base[key] == value):
                continue
            places.setdefault((key, repr(value)), (value, []))[1].append(layer)
    count = model.num_layers
    period = model.layers_per_block if model.scan_layers else count
    return tuple(
        LayerSetting(tuple(i for i in range(count) if i % period in own), key, value)
        for (key, _), (value, own) in places.items()
    )
