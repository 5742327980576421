"""Which layers have a sliding window or no rotation, from keys of a `config.json`."""

from collections.abc import Callable

from efficientids_flax.backbone.presets.families.family import LayerTypes, Values


def every_layer(values: Values) -> LayerTypes:
    """All layers slide, if there is a window (Mistral, Phi-3)."""
    return None if values["sliding_window"] is None else _all(values, lambda _: True)


def every_layer_if_used(values: Values) -> LayerTypes:
    """All layers slide, if there is a window in use (Qwen3-MoE)."""
    return every_layer(values) if values["use_sliding_window"] else None


def every_other_of_first(values: Values) -> LayerTypes:
    """`layer_types`, else every second layer before `max_window_layers` (Qwen2-MoE)."""
    if not values["use_sliding_window"] or values["layer_types"]:
        return values["layer_types"]
    last = values["max_window_layers"]
    return _all(values, lambda layer: layer % 2 == 0 and layer < last)


def after_first_layers(values: Values) -> LayerTypes:
    """`layer_types`, else those from `max_window_layers` on, if windows are in use (Qwen)."""
    if not values["use_sliding_window"] or values["sliding_window"] is None:
        return values["layer_types"]
    first = values["max_window_layers"]
    return values["layer_types"] or _all(values, lambda layer: layer >= first)


def all_but_each_nth(values: Values) -> LayerTypes:
    """`layer_types`, else all layers slide but every `sliding_window_pattern`-th (Gemma3)."""
    period = values["sliding_window_pattern"]
    return values["layer_types"] or _all(values, lambda layer: (layer + 1) % period != 0)


def all_but_each_fourth(values: Values) -> LayerTypes:
    """`layer_types`, else all layers slide but every fourth (OLMo3)."""
    return values["layer_types"] or _all(values, lambda layer: (layer + 1) % 4 != 0)


def by_pattern(values: Values) -> LayerTypes:
    """`layer_types`, else all layers but every `sliding_window_pattern`-th slide, with a window.

    A pattern of letters (EXAONE 4) is not read; it is refused elsewhere if it would be needed.
    """
    period = values.get("sliding_window_pattern", 4)
    if values["layer_types"] or values["sliding_window"] is None or not isinstance(period, int):
        return values["layer_types"]
    return _all(values, lambda layer: (layer + 1) % period != 0)


def given_or_every(values: Values) -> LayerTypes:
    """`layer_types`, else all layers slide, if there is a window (Ministral)."""
    return values["layer_types"] or every_layer(values)


def full_layers(values: Values, types: LayerTypes) -> tuple[int, ...]:
    """Indices of the layers with full attention: 'full_attention', formerly 'attention'."""
    count = values["num_hidden_layers"]
    kinds = types or ["full_attention"] * count
    return tuple(layer for layer in range(count) if kinds[layer] != "sliding_attention")


def every_other(values: Values) -> LayerTypes:
    """`layer_types`, else all layers slide but every second (Gemma2)."""
    return values["layer_types"] or _all(values, lambda layer: layer % 2 == 0)


def without_positions(values: Values) -> LayerTypes:
    """`layer_types`, else layers without rotation slide, if windows are in use (SmolLM3)."""
    if not values["use_sliding_window"] or values["sliding_window"] is None:
        return values["layer_types"]
    skipped = no_rotary_layers(values)
    return values["layer_types"] or _all(values, lambda layer: layer in skipped)


def no_rotary_layers(values: Values) -> tuple[int, ...]:
    """Layers whose queries and keys are not rotated: 0 in `no_rope_layers` (SmolLM3)."""
    count, turned = values["num_hidden_layers"], values["no_rope_layers"]
    if turned is None:
        interval = values["no_rope_layer_interval"]
        turned = [(layer + 1) % interval for layer in range(count)]
    return tuple(layer for layer in range(min(count, len(turned))) if not turned[layer])


def _all(values: Values, slides: Callable[[int], bool]) -> list[str]:
    layers = range(values["num_hidden_layers"])
    return ["sliding_attention" if slides(layer) else "full_attention" for layer in layers]
