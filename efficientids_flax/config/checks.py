"""Checks of a decoder's configuration, by topic: values that have to fit each other.

Letters: N heads, H head width, L layers.
"""

from typing import TYPE_CHECKING, Any

from efficientids_flax.config.parts import NORM_PLACES, NormPlace
from efficientids_flax.config.record import dotted_keys, positive, rates, unknown_key

if TYPE_CHECKING:
    from efficientids_flax.config.backbone import BackboneConfig

# Fields that are the same in all layers: sizes they share, and settings of parts outside a layer.
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


def number_problems(config: "BackboneConfig") -> list[str]:
    """Sizes and time scales are positive; rates are in [0, 1)."""
    found = positive(
        config, "num_layers", "model_dims", "hidden_dims", "num_heads", "num_kv_heads", "head_dim",
        "layers_per_block", "norm_epsilon", "max_positions", "position_min_timescale",
        "position_max_timescale", "attention_logit_cap", "final_logit_cap", "sliding_window",
        "sliding_window_ahead", "logits_divisor", "logits_clip", "relative_key_dims", "qkv_clip",
        "embedding_dims",
    )  # fmt: skip
    found += rates(
        config, "input_dropout", "attention_dropout", "residual_dropout", "mlp_dropout",
        "label_smoothing",
    )  # fmt: skip
    return found + [
        f"{name}: expected at least 0, found {getattr(config, name)}"
        for name in ("vocab_size", "position_offset")
        if getattr(config, name) < 0
    ]


def option_problems(config: "BackboneConfig") -> list[str]:
    """Sizes fit together; options that an option needs are set."""
    heads, kv = config.num_heads, config.num_kv_heads
    parallel, policy = config.parallel_residual, config.norm_policy
    biased = next((place for place in NORM_PLACES if _is_biased_rms(config, place)), None)
    # fmt: off
    return [sentence for wrong, sentence in (
        (heads % kv,
         f"num_kv_heads: expected a divisor of num_heads = {heads}, found {kv}"),
        (config.multi_query and kv != 1,
         f"multi_query: needs num_kv_heads = 1, found {kv}"),
        (config.fused_qkv and kv != heads,
         f"fused_qkv: needs num_kv_heads = num_heads = {heads}, found {kv}"),
        (biased,
         f"{'norm_bias' if biased == 'attention' else f'norms.{biased}'}: rms_norm has no bias"),
        (config.norm_scale_plus_one and not config.norm_scale,
         "norm_scale_plus_one: there is no scale, norm_scale is false"),
        (config.embedding_dims is not None and not config.vocab_size,
         "embedding_dims: there are no words, vocab_size is 0"),
        (config.embedding_dims == config.model_dims,
         f"embedding_dims: {config.model_dims} is model_dims; give null"),
        (config.tied_embeddings and not config.lm_head,
         "tied_embeddings: there is no head (lm_head false), found true"),
        (config.position_embedding == "learned" and config.max_positions is None,
         "max_positions: learned positions need it, found null"),
        ("sliding" in config.layer_types and config.sliding_window is None,
         "sliding_window: layer_types has sliding layers, found null"),
        (config.attention_sinks and config.attention_extra_logit is not None,
         "attention_extra_logit: attention_sinks are such logits already"),
        (config.qkv_clip_after_norm and config.qk_norm_after_rotary,
         "qkv_clip_after_norm: clips before the rotation; not with qk_norm_after_rotary"),
        (config.moe is not None and config.moe.gating == "top_k" and config.mlp_dropout,
         "mlp_dropout: experts of the gating 'top_k' have none"),
        (parallel and policy in ("pre_skip", "post_skip"),
         f"norm_policy: '{policy}' does not go with parallel_residual: they add up differently"),
        (config.shared_norm and not (parallel and policy == "pre"),
         "shared_norm: needs parallel_residual and norm_policy 'pre'"),
        (config.mlp_adds_input and not parallel,
         "mlp_adds_input: needs parallel_residual"),
    ) if wrong]
    # fmt: on


def rotary_problems(config: "BackboneConfig") -> list[str]:
    """The rotated width is even, or rounded up to be; longrope has one factor for each pair."""
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
                f"{name}: the rotated width {width} is {'odd' if width else 'too small'}"
                f" (head_dim {config.rotary_width}, fraction {rotary.fraction})"
            )
        if rotary.scaling and rotary.scaling.kind == "dynamic" and width == 2:
            found.append(f"{name}.scaling: dynamic scaling needs a turned width above 2")
        factors = ("short_factors", "long_factors") if rotary.scaling else ()
        for field in factors:
            count = len(getattr(rotary.scaling, field))
            if count and count != width // 2:
                found.append(
                    f"{name}.scaling.{field}: expected {width // 2}, one for each"
                    f" pair, found {count}"
                )
    return found


def latent_problems(config: "BackboneConfig") -> list[str]:
    """Latent attention has as many key heads as heads, and no options of plain projections."""
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
    """With the attention of `jax.nn`, no option is set that it does not support."""
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
            found.append(
                f"attention_implementation: {how!r} does not support {name}, found {value}"
            )
    if how == "cudnn":
        found += [
            f"attention_implementation: 'cudnn' does not support {name}"
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
    """Lists of layers fit the number of layers; if layers are scanned, they repeat by block."""
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
    """`layer_settings` have known keys, set each once per layer, and give valid layers."""
    known = dotted_keys(type(config))
    found, said = [], set()
    for setting in config.layer_settings:
        if setting.key not in known:
            found.append(f"layer_settings: {unknown_key(setting.key, known)}")
        elif setting.key.partition(".")[0] in SHARED or setting.key == "moe.layers":
            found.append(f"layer_settings: {setting.key} cannot differ between layers")
        twice = [layer for layer in setting.layers if (layer, setting.key) in said]
        if twice:
            found.append(f"layer_settings: {setting.key} is set twice for layers {twice}")
        said |= {(layer, setting.key) for layer in setting.layers}
    for layer in sorted({layer for layer, _ in said}) if not found else ():
        try:
            config.of_layer(layer)
        except ValueError as error:
            found.append(f"layer_settings: layer {layer}: {error}")
    return found


def _repeats(kinds: list[Any], period: int) -> bool:
    return all(kind == kinds[index % period] for index, kind in enumerate(kinds))


def _is_biased_rms(config: "BackboneConfig", place: NormPlace) -> bool:
    """Whether the norm of a place would be an RMSNorm with a bias."""
    own = config.norms.at(place) if config.norms else {}
    return own.get("norm", config.norm) == "rms_norm" and own.get("norm_bias", config.norm_bias)
