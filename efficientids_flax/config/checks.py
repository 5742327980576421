"""What has to hold between the values of a decoder's configuration, topic by topic.

Letters: N heads, H head width, L layers.
"""

from typing import TYPE_CHECKING, Any

from efficientids_flax.config.record import dotted_keys, unknown_key

if TYPE_CHECKING:
    from efficientids_flax.config.backbone import BackboneConfig

# What cannot differ between layers: sizes of what goes through them, and what is not in a layer.
SHARED = frozenset({
    "vocab_size", "num_layers", "model_dims", "scan_layers", "layers_per_block", "dtype",
    "param_dtype", "kernel_axes", "attention_mask", "final_norm", "tied_embeddings",
    "embedding_dims", "embedding_scale", "scale_injected_embeddings", "position_embedding",
    "max_positions", "position_offset", "positions_pass_padding",
    "position_min_timescale", "position_max_timescale", "no_rotary_layers", "embedding_norm",
    "layer_types", "layer_settings", "attention_implementation", "lora", "lm_head", "lm_head_bias",
    "final_logit_cap", "scale_before_logits", "logits_divisor", "logits_clip", "input_dropout",
    "label_smoothing", "label_smoothing_in_eval", "z_loss_weight", "loss_average",
})  # fmt: skip


def rotary_problems(config: "BackboneConfig") -> list[str]:
    """The turned width is even, or made so, and factors by frequency are one a pair."""
    found = []
    for name, rotary in (("rotary", config.rotary), ("sliding_rotary", config.sliding_rotary)):
        if rotary is None:
            continue
        width = int(config.rotary_width * rotary.fraction)
        kind = rotary.scaling.kind if rotary.scaling else "linear"
        rounded_up = rotary.by_frequency and kind in ("linear", "llama3")
        rounded_up = rounded_up and width < config.rotary_width
        if not width or (width % 2 and not rounded_up):
            found.append(
                f"{name}: the turned width {width} is {'odd' if width else 'nothing'}"
                f" (head_dim {config.rotary_width}, fraction {rotary.fraction})"
            )
        if rotary.scaling and rotary.scaling.kind == "dynamic" and width == 2:
            found.append(f"{name}.scaling: dynamic scaling needs a turned width above 2")
        factors = ("short_factors", "long_factors") if rotary.scaling else ()
        for field in factors:
            count = len(getattr(rotary.scaling, field))
            if count and count != width // 2:
                found.append(
                    f"{name}.scaling.{field}: expected {width // 2}, one a pair, found {count}"
                )
    return found


def latent_problems(config: "BackboneConfig") -> list[str]:
    """Latent attention has a key for each head, and nothing that goes by projections of its own."""
    own = config.latent_attention
    if own is None:
        return []
    found = []
    if own.rotary_dims >= config.head_dim:
        found.append(
            f"latent_attention.rotary_dims: expected below head_dim = {config.head_dim},"
            f" found {own.rotary_dims}"
        )
    if config.num_kv_heads != config.num_heads:
        found.append(f"num_kv_heads: latent attention has num_heads = {config.num_heads} of them")
    plain = {"qk_norm": "none", "fused_qkv": False, "multi_query": False, "qkv_clip": None,
             "relative_key_dims": None}  # fmt: skip
    found += [
        f"{name}: latent attention has none, found {getattr(config, name)!r}"
        for name, value in plain.items()
        if getattr(config, name) != value
    ]
    return found


def kernel_problems(config: "BackboneConfig") -> list[str]:
    """What the attention of `jax.nn` cannot do is not asked of it."""
    how = config.attention_implementation
    if how == "exact":
        return []
    found = []
    for name, value in (
        ("attention_logit_cap", config.attention_logit_cap),
        ("attention_dropout", config.attention_dropout or None),
        ("attention_extra_logit", config.attention_extra_logit),
        ("attention_sinks", config.attention_sinks or None),
        ("latent_attention", config.latent_attention),
        ("relative_key_dims", config.relative_key_dims),
    ):
        if value is not None:
            found.append(f"attention_implementation: {how!r} has no {name}, found {value}")
    if how == "cudnn":
        found += [
            f"attention_implementation: 'cudnn' is given no {name}"
            for name in ("relative_bias", "alibi")
            if getattr(config, name) is not None
        ]
        if config.dtype not in ("bfloat16", "float16"):
            found.append(
                "attention_implementation: 'cudnn' needs dtype bfloat16 or float16,"
                f" found {config.dtype}"
            )
    return found


def layer_problems(config: "BackboneConfig") -> list[str]:
    """Lists of layers fit the number of layers and, where scanned, repeat by block."""
    count, period = config.num_layers, config.layers_per_block
    found = []
    if period > 1 and not config.scan_layers:
        found.append(f"layers_per_block: {period} needs scan_layers")
    if count % period:
        found.append(
            f"layers_per_block: expected a divisor of num_layers = {count}, found {period}"
        )
    if config.layer_types and len(config.layer_types) != count:
        found.append(f"layer_types: expected {count} entries, found {len(config.layer_types)}")
    lists = [
        ("moe.layers", config.moe.layers if config.moe else ()),
        ("no_rotary_layers", config.no_rotary_layers),
        *((f"layer_settings: {each.key}", each.layers) for each in config.layer_settings),
    ]
    for name, layers in lists:
        outside = [layer for layer in layers if not 0 <= layer < count]
        if outside:
            found.append(f"{name}: {outside} outside of the {count} layers")
    if config.scan_layers and not found:
        kinds: list[tuple[str, list[Any]]] = [
            (name, [layer in layers for layer in range(count)]) for name, layers in lists
        ]
        for name, each in (*kinds, ("layer_types", list(config.layer_types))):
            if not _repeats(each, period):
                found.append(
                    f"{name}: must repeat every layers_per_block = {period} layers when layers are"
                    " scanned"
                )
    return found


def setting_problems(config: "BackboneConfig") -> list[str]:
    """Settings of single layers are known ones, said once, and make sense in their layer."""
    known = dotted_keys(type(config))
    found, said = [], set()
    for setting in config.layer_settings:
        if setting.key not in known:
            found.append(f"layer_settings: {unknown_key(setting.key, known)}")
        elif setting.key.partition(".")[0] in SHARED or setting.key == "moe.layers":
            found.append(f"layer_settings: {setting.key} is the same in all layers")
        twice = [layer for layer in setting.layers if (layer, setting.key) in said]
        if twice:
            found.append(f"layer_settings: {setting.key} is said twice of layers {twice}")
        said |= {(layer, setting.key) for layer in setting.layers}
    for layer in sorted({layer for layer, _ in said}) if not found else ():
        try:
            config.of_layer(layer)
        except ValueError as error:
            found.append(f"layer_settings: layer {layer}: {error}")
    return found


def _repeats(kinds: list[Any], period: int) -> bool:
    return all(kind == kinds[index % period] for index, kind in enumerate(kinds))
