"""Translates what a job's dump says about the decoder: Praxis' hyper-parameters to our settings.

Covers `TransformerLm`, `StackedTransformer`, `Transformer`, `TransformerFeedForward(Moe)` and the
norms of Praxis 1.4.0; attention and the softmax layers have their own files. A path that a dump
lacks has Praxis' default.
"""

from typing import Any

from converters.paxml.infer.attention import read_attention
from converters.paxml.infer.dump import Dump, open_dump, templates
from converters.paxml.infer.facts import gather
from converters.paxml.infer.hparams import Symbol
from converters.paxml.infer.norms import FAKE_NORM, read_norms
from converters.paxml.infer.softmax import SOFTMAXES, read_softmax

MOST_LAYERS = 10_000  # per block; more cannot be a real model
POSITIONS = {"PositionalEmbedding": "sinusoidal", "TrainablePositionalEmbedding": "learned"}

# saxml, and paxml/contrib/gpu/scripts_gpu/saxml_layers.py: attention and feed-forward in parallel
PARALLEL = ("ParallelTransformer", "ParallelTransformerOnlyNormAttentionInputs")

# fmt: off
CLASSES = (
    # path                allowed classes
    ("{lm}",              ("TransformerLm", "InterleavedTransformerLm")),
    ("{lm}.softmax_tpl",  SOFTMAXES),
    ("{stack}",           ("StackedTransformer",)),
    ("{layer}",           ("Transformer", *PARALLEL)),
    ("{atten}",           ("DotProductAttention", "DotProductAttentionWithLPB",
                           "DotProductAttentionXL", "LocalSelfAttention", "LocalSelfAttentionXL",
                           "MultiQueryDotProductAttention", "MultiQueryDotProductAttentionLPB",
                           "GroupedQueryAttention", "ChunkedMQA")),  # saxml: by chunks
    ("{ff}",              ("TransformerFeedForward", "TransformerFeedForwardWithSeqSplit",
                           "TransformerMLP")),  # saxml: without a norm
)
UNSUPPORTED = (
    # path                                     the value that means "off"
    ("{lm}.ngrammer_tpl",                      None),
    ("{lm}.post_attention_ngrammer_tpls",      None),
    ("{stack}.ngrammer_tpls",                  None),
    ("{stack}.use_cross_attention",            False),
    ("{layer}.ngrammer_tpl",                   None),
    ("{atten}.ngrammer_tpl",                   None),
    ("{atten}.dconv_qkv",                      False),
)
PLAIN = (
    # key                        path                                  Praxis' default
    ("model_dims",               "{lm}.model_dims",                    0),
    ("vocab_size",               "{lm}.vocab_size",                    0),
    ("hidden_dims",              "{stack}.hidden_dims",                0),
    ("num_heads",                "{stack}.num_heads",                  0),
    ("input_dropout",            "{stack}.input_dropout_prob",         0.0),
    ("qkv_bias",                 "{atten}.use_bias",                   True),
    ("attention_out_bias",       "{atten}.use_bias",                   True),
    ("attention_logit_cap",      "{atten}.atten_logit_cap",            0.0),
    ("attention_extra_logit",    "{atten}.attention_extra_logit",      None),
    ("gated_mlp",                "{ff}.use_gated_activation",          False),
    ("mlp_bias",                 "{ff}.has_bias",                      True),
    ("mlp_padding_first",        "{ff}.apply_padding_first",           False),
)
MOE = (
    ("moe.hidden_dims",          "{moe}.hidden_dims",                  0),
    ("moe.gated",                "{moe}.use_gated_activation",         False),
    ("moe.num_experts",          "{stack}.num_experts",                0),
    ("moe.gating",               "{stack}.gating_func",                "top2"),
    ("moe.num_groups",           "{stack}.num_groups",                 1),
    ("moe.min_group_size",       "{stack}.min_group_size",             None),
    ("moe.capacity_factor",      "{moe}.unadjusted_expert_capacity_factor", 2.0),
    ("moe.expert_capacity",      "{moe}.expert_capacity_dim",          0),
    ("moe.second_expert_policy", "{moe}.second_expert_policy",         "all"),
    ("moe.gating_logit_cap",     "{moe}.gating_logit_cap",             0.0),
    ("moe.gating_level",         "{moe}.moe_gating_embedding_level",   "token"),
    ("moe.load_balance_loss_weight", "{moe}.moe_load_balance_loss_weight", 1.0),
    ("moe.padding_first",        "{moe}.apply_padding_first",          False),
    ("moe.residual_weight",      "{moe}.residual_weight",              1.0),
)
TRAINING_ONLY = (
    ("{lm}.entropy_loss_weight",            0.0),
    ("{softmax}.bi_tempered_loss_tpl",      None),
    ("{stack}.residual_droppath_prob",      0.0),
)
# fmt: on


def read_backbone(dump: Dump, *, head: bool) -> None:
    """Add the facts about the decoder, with the keys of `BackboneConfig`.

    Args:
        dump: the dump to read; it receives the facts.
        head: whether the cap, smoothing and z-loss of the head belong to the decoder.
    """
    if not any(path.startswith("model.") for path in dump.values):
        return
    count = templates(dump.values)
    if count == 1:
        _read(dump, head)
        return
    own = [open_dump(dump.values, number) for number in range(count)]
    for each in own:
        _read(each, head)
    layers = max(dump.size("{stack}.num_layers"), count)
    if layers > MOST_LAYERS:
        dump.refuse("{stack}.num_layers", layers)
        layers = count
    gather(dump.facts, {layer: own[layer * count // layers].facts for layer in range(layers)})


def _read(dump: Dump, head: bool) -> None:
    """Add the facts for one template of the layers."""
    for path, allowed in CLASSES:
        name = dump.class_of(path, allowed[0])
        if name not in allowed:
            dump.refuse(f"{path}.cls", name)
    for path, without in UNSUPPORTED:
        if dump.get(path, without) != without or dump.has(f"{path}.cls"):
            dump.refuse(path, dump.get(path, dump.class_of(path, "")))
    for path, without in TRAINING_ONLY:
        value = dump.get(path, without)
        off = not value or (isinstance(value, int | float) and value < 0)
        if not off or dump.has(f"{path}.cls"):
            dump.facts.notes.append(f"{dump.path(path)}: training only, not taken along")
    for key, path, default in PLAIN:
        dump.add(key, path, dump.get(path, default))
    read_softmax(dump, head=head)
    # `LanguageModel` sets the `model_type` of its `lm_tpl` to its own.
    path = "model.model_type" if dump.has("model.model_type") else "{lm}.model_type"
    dump.add("attention_mask", path, dump.get(path, "causal"))
    _quantization(dump)
    _layers(dump)
    _residuals(dump)
    _dtypes(dump)
    read_norms(dump)
    _embeddings(dump)
    read_attention(dump)
    dump.activation("activation", "{ff}.activation_tpl")
    for key, name in (
        ("attention_dropout", "atten"),
        ("residual_dropout", "residual"),
        ("mlp_dropout", "relu"),
    ):
        path, every = f"{{stack}}.{name}_dropout_prob", "{stack}.dropout_prob"
        own = dump.get(path, None)
        rate = own or dump.get(every, 0.0)
        if key == "attention_dropout" and dump.class_of("{atten}", "") == "GroupedQueryAttention":
            rate = max(rate, 0.0)  # it only uses rates above 0
        dump.add(key, path if own else every, rate)


def _quantization(dump: Dump) -> None:
    """Refuse rounding in training, and note rounding in serving (praxis/layers/quantization)."""
    found = {path: str(value) for path, value in dump.values.items() if ".quantization." in path}
    training = (path for path, mode in found.items() if mode == "training")
    kinds = (path.removesuffix("mode") + "quantization_type" for path in training)
    rounded = next((path for path in kinds if found.get(path) in ("aqt", "fq", "fq_vn")), None)
    if rounded is not None:
        dump.refuse(rounded, f"{found[rounded]} in training: weights are rounded in each product")
    served = [path for path in found if path.endswith(".act_params.precision")]
    if served:
        dump.facts.notes.append(
            f"{served[0]} is {found[served[0]]}: where the original is served, what is multiplied"
            " by weights is rounded to as many bits; here it is not"
        )


def _layers(dump: Dump) -> None:
    """Number of layers, and which of them have experts."""
    per_block = dump.size("{stack}.num_layers")
    outer = dump.path("{stack}")
    blocks = 1
    for name in ("block", "pipeline_stage"):
        if outer.endswith(f".{name}"):
            outer = outer.removesuffix(f".{name}")
            repeats = "x_times" if name == "block" else "num_pipeline_stages"
            blocks *= dump.size(f"{outer}.{repeats}") * dump.size(f"{outer}.circular_repeat", 1)
    if per_block * blocks:
        dump.add("num_layers", "{stack}.num_layers", per_block * blocks)
    own = dump.values.get(dump.path("{stack}.moe_layers"))
    if not isinstance(own, list | tuple) or not own:
        dump.add("moe", "{stack}.moe_layers", own or None)
        return
    # If the dump has names of types instead of numbers, the tree shows which layers have experts.
    # Numbers beyond the block have no effect.
    if not dump.unwritten("{stack}.moe_layers"):
        layers = (block * per_block + layer for block in range(blocks) for layer in own
                  if layer < (per_block or layer + 1))  # fmt: skip
        dump.add("moe.layers", "{stack}.moe_layers", tuple(sorted(layers)))
    for key, path, default in MOE:
        dump.add(key, path, dump.get(path, default))
    if dump.has("{moe}.expert_capacity_dim") and dump.get("{moe}.expert_capacity_dim", 0) is None:
        dump.facts.known.pop("moe.expert_capacity", None)
        dump.add("moe.expert_capacity", "{moe}.expert_capacity_dim", 1)  # as top2 gating takes None
    dump.activation("moe.activation", "{moe}.activation_tpl")


def _residuals(dump: Dump) -> None:
    """Facts about residual connections, and where norms are applied in a layer."""
    skip, weight = "{ff}.add_skip_connection", "{ff}.residual_weight"
    policy, fake = dump.get("{layer}.norm_policy", "pre"), _has_no_norm(dump)
    parallel = dump.class_of("{layer}", "Transformer") in PARALLEL
    added = dump.get(skip, True)
    dump.add("parallel_residual", "{layer}.cls", parallel)
    dump.add("shared_norm", "{layer}.norm_policy", parallel and policy == "pre")
    if not parallel:
        if not added:
            dump.refuse(skip, added)
        if fake:
            dump.refuse("{ff}.ln_tpl.cls", FAKE_NORM)
        dump.add("norm_policy", "{layer}.norm_policy", policy)
        dump.add("mlp_residual_weight", weight, dump.get(weight, 1.0))
        return
    if policy not in ("pre", "primer_hybrid"):
        dump.refuse("{layer}.norm_policy", f"{policy} in a parallel layer")
    if dump.get("{ff}.apply_padding_first", False):
        dump.refuse("{ff}.apply_padding_first", "on in a parallel layer")
    if not fake:
        dump.refuse("{ff}.ln_tpl.cls", dump.class_of("{ff}.ln_tpl", "LayerNorm"))
    if added and dump.get(weight, 1.0) != 1:
        dump.refuse(weight, f"{dump.get(weight, 1.0)} in a parallel layer")
    # Hybrid parallel layers have two norms, one before attention and one before the feed-forward.
    dump.add("norm_policy", "{layer}.norm_policy", "pre")
    dump.add("mlp_adds_input", skip, bool(added))


def _has_no_norm(dump: Dump) -> bool:
    """Whether the feed-forward's norm does nothing."""
    mlp = dump.class_of("{ff}", "TransformerFeedForward") == "TransformerMLP"
    return dump.class_of("{ff}.ln_tpl", FAKE_NORM if mlp else "LayerNorm") == FAKE_NORM


def _dtypes(dump: Dump) -> None:
    """Add the dtype; layers inherit it unless they set one (`BaseLayer.copy_base_hparams`)."""
    for path in ("{lm}.fprop_dtype", "model.fprop_dtype", "{lm}.dtype", "model.dtype"):
        name = _dtype(dump.values.get(dump.path(path)))
        if name and not (path == "{lm}.dtype" and name == "float32"):
            dump.add("dtype", path, name)
            return


def _dtype(value: Any) -> str | None:
    """The name in `type/jax.numpy/bfloat16`, or in `BFloat16DType` in the dump of built layers."""
    return value.name.removesuffix("DType").lower() if isinstance(value, Symbol) else None


def _embeddings(dump: Dump) -> None:
    """Facts about word and position embeddings."""
    apart = dump.class_of("{lm}.separate_embedding_tpl", "") or None
    dump.add("tied_embeddings", "{lm}.separate_embedding_tpl", apart is None)
    path = ("{softmax}" if apart is None else "{lm}.separate_embedding_tpl") + ".scale_sqrt_depth"
    dump.add("embedding_scale", path, "sqrt_dim" if dump.get(path, False) else "none")
    path = "{lm}.position_emb_tpl"
    name = dump.class_of(path, "PositionalEmbedding")
    if name is not None and name not in POSITIONS:
        dump.refuse(f"{path}.cls", name)
        return
    dump.add("position_embedding", path, POSITIONS[name] if name else "none")
    if name == "PositionalEmbedding":
        for end, default in (("min_timescale", 1), ("max_timescale", 10_000)):
            dump.add(f"position_{end}", f"{path}.{end}", dump.get(f"{path}.{end}", default))
    elif name:
        length = f"{path}.max_seq_length"
        dump.add("max_positions", length, dump.get(length, 10_240))
