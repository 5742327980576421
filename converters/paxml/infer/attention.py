"""Translates what a job's dump says about attention: heads, scaling, rotary positions.

Praxis 1.4.0: `DotProductAttention`, `MultiQueryDotProductAttention`, `GroupedQueryAttention`.
"""

from converters.paxml.infer.dump import Dump

ROTARY = {
    "RotaryPositionalEmbedding": "half_split",
    "LLaMARotaryEmbedding": "interleaved",
    "GPTJRotaryEmbedding": "interleaved",  # with fixed timescales
}


def read_attention(dump: Dump) -> None:
    """Add the facts about attention, which depend on its class."""
    kind = dump.class_of("{atten}", "DotProductAttention") or ""
    heads = dump.size("{stack}.num_heads")
    width = dump.size("{lm}.model_dims") or dump.size("{stack}.model_dims")
    per_head = dump.size("{stack}.dim_per_head")  # 0 means D / N
    even = width // heads if heads else 0  # Praxis scales by this unless configured otherwise
    if per_head or even:
        path = "{stack}.dim_per_head" if per_head else "{stack}.num_heads"
        dump.add("head_dim", path, per_head or even)
    single = kind.startswith(("MultiQuery", "Grouped", "ChunkedMQA"))
    shared = dump.get("{atten}.num_kv_heads", 1) if single else heads
    if shared:
        dump.add("num_kv_heads", "{atten}.num_kv_heads" if single else "{stack}.num_heads", shared)
    fused = not single and dump.get("{atten}.combine_qkv", False)
    dump.add("fused_qkv", "{atten}.combine_qkv", bool(fused))

    relative = kind.endswith("AttentionXL")
    width = dump.get("{atten}.rel_pos_emb_dim", None) if relative else None
    dump.add("relative_key_dims", "{atten}.rel_pos_emb_dim" if relative else "{atten}.cls", width)
    if kind.startswith("Local"):
        _window(dump)
    else:
        dump.add("sliding_window", "{atten}.cls", None)
    if kind == "GroupedQueryAttention":
        temperature = dump.number("{atten}.atten_temp", 1.0)
        scale = (
            "inverse_sqrt_head_dim"
            if temperature == 1
            else (per_head or even) ** -0.5 / temperature
        )
        dump.add("query_scaling", "{atten}.atten_temp", scale)
        ends = dump.get("{atten}.rope_min_max_timescales", None)
        _rotary(dump, "{atten}.rope_min_max_timescales", "half_split" if ends else None, ends or ())
        return
    by_head = dump.get("{atten}.scale_query_by_dim_per_head", False) and per_head
    scaled = "inverse_sqrt_head_dim" if by_head or per_head in (0, even) else even**-0.5
    path = "{atten}.scale_query_by_dim_per_head"
    if not single:
        if dump.get("{atten}.internal_enable_per_dim_scale", True):
            scaled, path = "per_dim_scale", "{atten}.internal_enable_per_dim_scale"
        if not dump.get("{atten}.internal_enable_query_scale", True):
            scaled, path = "none", "{atten}.internal_enable_query_scale"
        blocks = kind.startswith("Local") and not dump.get("{atten}.simulated", False)
        if dump.get("{atten}.scale_logits_by_head_dims", False) and not blocks:
            path = "{atten}.scale_logits_by_head_dims"
            if scaled == "none" and not (relative and dump.get("{atten}.use_bias", True)):
                scaled = "inverse_sqrt_head_dim"
            else:
                dump.refuse(path, "on beside a scaled query")
    dump.add("query_scaling", path, scaled)

    on = "{atten}.use_rotary_position_emb"
    tpl = "{atten}.rotary_position_emb_tpl"
    name = dump.class_of(tpl, "RotaryPositionalEmbedding")
    if not dump.get(on, False):
        dump.add("rotary", on, None)
    elif name not in ROTARY:
        dump.refuse(f"{tpl}.cls", name)
    else:
        ends = (dump.get(f"{tpl}.min_timescale", 1), dump.get(f"{tpl}.max_timescale", 10_000))
        part = name == "GPTJRotaryEmbedding"
        _rotary(dump, f"{tpl}.cls", ROTARY[name], (1, 10_000) if part else ends)
        turned, width = dump.size(f"{tpl}.rotary_dim"), per_head or even
        if part and turned and width:
            dump.add("rotary.fraction", f"{tpl}.rotary_dim", turned / width)
            dump.add("rotary.by_frequency", f"{tpl}.cls", True)

    tpl = "{atten}.relative_bias_tpl"
    if dump.class_of(tpl, "") == "RelativeBias":
        for key, name, default in (
            ("num_buckets", "relative_attention_num_buckets", 32),
            ("max_distance", "relative_attention_max_distance", 128),
            ("bidirectional", "bidirectional", False),
            ("use_length_as_position", "use_length_as_position", True),
        ):
            path = f"{tpl}.{name}"
            dump.add(f"relative_bias.{key}", path, dump.get(path, default))
    elif dump.class_of(tpl, ""):
        dump.refuse(f"{tpl}.cls", dump.class_of(tpl, ""))
    else:
        dump.add("relative_bias", tpl, None)
    qk_norm = dump.class_of("{atten}.ln_tpl", "") if not single else None
    dump.add("qk_norm", "{atten}.ln_tpl", "per_head" if qk_norm else "none")
    if dump.get("{atten}.scale_logits_by_head_dims", False) and dump.class_of(tpl, ""):
        dump.refuse("{atten}.scale_logits_by_head_dims", "on: it scales the relative bias too")


def _window(dump: Dump) -> None:
    """Facts about the window of `LocalSelfAttention`; its left context includes the query."""
    dump.add("sliding_window", "{atten}.left_context", dump.get("{atten}.left_context", None))
    mask = dump.facts.known.get("attention_mask")
    if mask is not None and mask.value != "causal":  # the right context would hide visible keys
        dump.refuse("{atten}.right_context", f"a window of a {mask.value} model")


def _rotary(dump: Dump, path: str, pairing: str | None, ends: tuple[float, ...]) -> None:
    """Add rotary positions with these timescales; without a pairing, add that there are none."""
    if pairing is None:
        dump.add("rotary", path, None)
        return
    dump.add("rotary.pairing", path, pairing)
    for key, value in zip(("min_timescale", "max_timescale"), ends, strict=True):
        own = path.removesuffix("cls") + key if path.endswith(".cls") else path
        dump.add(f"rotary.{key}", own, value)
