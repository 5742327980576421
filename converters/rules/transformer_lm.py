# ruff: noqa: E501
"""The rules for Praxis' `TransformerLm` (praxis/layers/transformer_models.py) and its variants.

Shapes and stored values stay as PAXml has them unless a rule names an operation. Letters: V
vocabulary, T positions, D model width, N heads, H head width, F hidden width of the FFN, P width of
relative keys, X experts, L layers.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from converters.errors import MappingError
from converters.rules.language import Rule

ROOT = "lm/"

# fmt: off
TOP = (
    # target                          source                              shape
    Rule("embedder/embedding",            "embedding_lookup/emb_var"),        # [V, D]
    Rule("position_embedding/embedding",  "position_emb/emb_var"),            # [T, D]
    Rule("final_norm/{scale|bias}",       "final_ln/{scale|bias}"),           # [D]
    Rule("lm_head/kernel",                "softmax/logits_ffn/linear/w"),     # [D, V]
    Rule("lm_head/bias",                  "softmax/logits_ffn/bias/b"),       # [V]
)
# GShardSharedEmbeddingSoftmax has a kernel too, under another name.
GSHARD = Rule("lm_head/kernel",           "softmax/embedding/w", "transpose 1 0")   # [V, D]

# The head NClassMajorSharedEmbeddingSoftmax (praxis/layers/embedding_softmax.py) has one row per
# word.
BY_WORD = (
    Rule("lm_head/kernel",                "softmax/w", "transpose 1 0"),      # [V, D]
    Rule("lm_head/bias",                  "softmax/bias/b"),                  # [V]
    Rule("lm_head/kernel_scale",          "softmax/w_quantized_scale"),       # [V]
    Rule("lm_head/kernel_zero_point",     "softmax/w_quantized_zp"),          # [V]
)

# An output projection with `output_proj_use_nhd_shape` (glam.py, grok.py).
NHD_POST = Rule("attention/out/kernel",   "self_attention/post/w", "transpose 2 0 1")  # [N, H, D]

LAYER = (
    # attention: praxis/layers/attentions.py, DotProductAttention
    Rule("attention/query/kernel",        "self_attention/query/w"),          # [D, N, H]
    Rule("attention/query/bias",          "self_attention/query/b"),          # [N, H]
    Rule("attention/key/kernel",          "self_attention/key/w"),            # [D, N, H] or [D, H]
    Rule("attention/key/bias",            "self_attention/key/b"),            # [N, H] or [H]
    Rule("attention/value/kernel",        "self_attention/value/w"),          # as key
    Rule("attention/value/bias",          "self_attention/value/b"),
    Rule("attention/qkv/kernel",          "self_attention/combined_qkv/w"),   # [3, D, N, H]
    Rule("attention/qkv/bias",            "self_attention/combined_qkv/b"),   # [3, N, H]
    Rule("attention/out/kernel",          "self_attention/post/w"),           # [D, N, H], contracts N, H
    Rule("attention/out/bias",            "self_attention/post/b"),           # [D]
    Rule("attention/per_dim_scale",       "self_attention/per_dim_scale/per_dim_scale"),  # [H]
    Rule("attention/relative_bias/embedding", "self_attention/relative_bias/wrb"),  # [N, buckets]
    Rule("attention/relative_key/kernel", "self_attention/pos_proj/w"),       # [P, N, H], Transformer-XL
    Rule("attention/relative_key/key_bias", "self_attention/u"),              # [N, H]
    Rule("attention/relative_key/distance_bias", "self_attention/v"),         # [N, H]
    Rule("attention/query_norm/{scale|bias}", "self_attention/layer_norm_q/{scale|bias}"),  # [H]
    Rule("attention/key_norm/{scale|bias}",   "self_attention/layer_norm_k/{scale|bias}"),  # [H]
    # norms: praxis/layers/normalizations.py; LayerNorm's scale is stored minus one
    Rule("attention_norm/{scale|bias}",       "layer_norm/{scale|bias}"),           # [D]
    Rule("pre_attention_norm/{scale|bias}",   "pre_layer_norm/{scale|bias}"),       # [D], hybrid
    Rule("post_attention_norm/{scale|bias}",  "post_layer_norm/{scale|bias}"),      # [D], hybrid
    Rule("mlp_norm/{scale|bias}",             "ff_layer/layer_norm/{scale|bias}"),  # [D]
    Rule("pre_mlp_norm/{scale|bias}",         "ff_layer/pre_layer_norm/{scale|bias}"),   # [D], hybrid
    Rule("post_mlp_norm/{scale|bias}",        "ff_layer/post_layer_norm/{scale|bias}"),  # [D], hybrid
    # FFN: praxis/layers/transformers.py, TransformerFeedForward
    Rule("mlp/up/kernel",                 "ff_layer/ffn_layer1/linear/w"),       # [D, F]
    Rule("mlp/up/bias",                   "ff_layer/ffn_layer1/bias/b"),         # [F]
    Rule("mlp/gate/kernel",               "ff_layer/ffn_layer1_gate/linear/w"),  # [D, F]
    Rule("mlp/gate/bias",                 "ff_layer/ffn_layer1_gate/bias/b"),    # [F]
    Rule("mlp/down/kernel",               "ff_layer/ffn_layer2/linear/w"),       # [F, D]
    Rule("mlp/down/bias",                 "ff_layer/ffn_layer2/bias/b"),         # [D]
    # mixture of experts: TransformerFeedForwardMoe
    Rule("moe/router/kernel",             "ff_layer/gate"),                      # [D, X]
    Rule("moe/up/kernel",                 "ff_layer/wi_0"),                      # [X, D, F]
    Rule("moe/gate/kernel",               "ff_layer/wi_gate_0"),                 # [X, D, F]
    Rule("moe/down/kernel",               "ff_layer/wo_0"),                      # [X, F, D]
)

# Attention and feed-forward in parallel (saxml's `ParallelTransformer` with 'primer_hybrid', as in
# GPT-NeoX): each reads the layer's input through its own norm, and the layer holds both norms.
PARALLEL_NORMS = (
    Rule("attention_norm/{scale|bias}",       "pre_layer_norm/{scale|bias}"),       # [D]
    Rule("mlp_norm/{scale|bias}",             "post_layer_norm/{scale|bias}"),      # [D]
)

# How the layers are stored in the checkpoint, and what they become. `{j}` counts the K layers of
# one repeated block or pipeline stage; the stages of a pipeline hold consecutive layers
# ("stage-major").
FORMS = {
    # (form, scanned): (target prefix, source prefix, operation)
    ("separate", False):        ("layers_{i}/",       "transformer/x_layers_{i}/",                            ""),
    ("separate", True):         ("layers/",           "transformer/x_layers_{i}/",                            "stack 0"),
    ("repeat", True):           ("layers/",           "transformer/repeat/sub/x_layers_0/",                   ""),
    ("repeat", False):          ("layers_{i}/",       "transformer/repeat/sub/x_layers_0/",                   "unstack 0"),
    ("blocks", True):           ("layers/block_{j}/", "transformer/repeat/sub/x_layers_{j}/",                 ""),
    ("blocks", False):          ("layers_{i}/",       "transformer/repeat/sub/x_layers_@/",                   "unstack 0 @ K"),
    ("pipeline", True):         ("layers/",           "transformer/pipeline/body/x_layers_{j}/",              "stack 1; merge 0"),
    ("pipeline", False):        ("layers_{i}/",       "transformer/pipeline/body/x_layers_@/",                "unstack 0 @ K"),
    ("pipelined repeat", True):  ("layers/",          "transformer/pipeline/body/repeat/sub/x_layers_0/",     "merge 0"),
    ("pipelined repeat", False): ("layers_{i}/",      "transformer/pipeline/body/repeat/sub/x_layers_0/",     "merge 0; unstack 0"),
    ("pipelined blocks", True):  ("layers/block_{j}/", "transformer/pipeline/body/repeat/sub/x_layers_{j}/",  "merge 0"),
    ("pipelined blocks", False): ("layers_{i}/",      "transformer/pipeline/body/repeat/sub/x_layers_@/",     "merge 0; unstack 0 @ K"),
}
# fmt: on

# Number of axes for layers in each form, which come before a leaf's own axes.
LEADING = {"separate": 0, "pipelined repeat": 2, "pipelined blocks": 2}  # else 1

# Suffixes of the scales and zero points beside a quantized weight (praxis/layers/quantization).
QUANTIZED = (("_quantized_scale", "_scale"), ("_quantized_zp", "_zero_point"))


@dataclass(frozen=True)
class LayerForm:
    """How the layers are stored in a checkpoint.

    Attributes:
        name: a form of `FORMS`.
        per_block: layers in one repeated block or pipeline stage (K); 1 without blocks and stages.
        extra_axes: axes for layers before those of the form, to be merged with its first: the
            repeats of a circular pipeline, or all but one axis of Praxis' `nd_prefix_shape`.
    """

    name: str
    per_block: int
    extra_axes: int = 0


def layer_form(paths: Iterable[str]) -> LayerForm | None:
    """Find the form in which the layers are stored; None if there are no layers.

    Raises:
        MappingError: there are layers in more than one form.
    """
    counts: dict[str, set[str]] = {}
    for path in paths:
        head, found, rest = path.partition("x_layers_")
        if found and head.startswith(f"{ROOT}transformer/"):
            counts.setdefault(head.removeprefix(ROOT), set()).add(rest.partition("/")[0])
    if not counts:
        return None
    if len(counts) > 1:
        raise MappingError(f"layers lie in several places: {', '.join(sorted(counts))}")
    ((head, numbers),) = counts.items()
    repeated, pipelined = "repeat/" in head, "pipeline/" in head
    size = len(numbers)
    if not repeated:
        return LayerForm("pipeline" if pipelined else "separate", size if pipelined else 1)
    name = "repeat" if size == 1 else "blocks"
    return LayerForm(f"pipelined {name}" if pipelined else name, size)


def extra_axes(form: LayerForm | None, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Number of axes for layers that parameters have in addition to those of the form."""
    if form is None or form.name == "separate":
        return 0
    ranks = [
        len(shape)
        for path, shape in shapes.items()
        if "/x_layers_" in path and path.endswith("norm/scale")
    ]
    return max(min(ranks) - 1 - (2 if form.name.startswith("pipelined") else 1), 0) if ranks else 0


def layers_differ(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the layers of a block or stage differ in their leaves or shapes."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for path, shape in shapes.items():
        _, found, rest = path.partition("/x_layers_")
        number, _, leaf = rest.partition("/")
        if found:
            layers.setdefault(number, {})[leaf] = shape
    first = next(iter(layers.values()), {})
    return any(own != first for own in layers.values())


def has_nhd_post(shapes: Mapping[str, tuple[int, ...]], said: bool | None = None) -> bool:
    """Whether output projections of attention are [N, H, D] instead of [D, N, H].

    Args:
        shapes: parameter path -> shape, of weights that are not packed.
        said: what the job's dump says; used if the shapes fit both orders. None without a dump.
    """
    for path, shape in shapes.items():
        if path.endswith("self_attention/post/w"):
            layer = path.removesuffix("post/w")
            query = shapes.get(f"{layer}query/w") or shapes.get(f"{layer}combined_qkv/w") or ()
            dnh, own = query[-3:], shape[-3:]
            nhd = (*dnh[1:], *dnh[:1])
            if len(dnh) == 3 and nhd != dnh and own in (dnh, nhd):
                return own == nhd
    return bool(said)


def has_parallel_norms(paths: Collection[str]) -> bool:
    """Whether each layer has two norms of its own while its feed-forward has none."""
    two = any(path.endswith("/post_layer_norm/scale") for path in paths)
    inner = any(path.partition("/ff_layer/")[2].endswith("layer_norm/scale") for path in paths)
    return two and not inner


def rules(
    form: LayerForm | None,
    scan_layers: bool | None = None,
    prefix: str = "",
    by_word: bool = False,
    nhd_post: bool = False,
    heads: Mapping[str, str] | None = None,
    parallel: bool = False,
) -> list[Rule]:
    """Make the table for a checkpoint whose layers are stored in `form`.

    Args:
        form: see `layer_form`.
        scan_layers: stack the layers along a new first axis (True) or keep them one by one (False);
            None keeps what the checkpoint has (pipelines become stacked).
        prefix: put before every target.
        by_word: whether the head has one row per word, see `BY_WORD`.
        nhd_post: whether output projections are [N, H, D], see `has_nhd_post`.
        heads: path below a layer -> operation that splits merged heads, see `heads.split_heads`.
        parallel: whether layers have the norms of `PARALLEL_NORMS`, see `has_parallel_norms`.
    """
    top = [rule for rule in TOP if not (by_word and rule.target.startswith("lm_head/"))]
    top = [GSHARD, *top, *(BY_WORD if by_word else ())]
    table = [Rule(prefix + rule.target, ROOT + rule.source, rule.op) for rule in top]
    if form is not None:
        scanned = form.name != "separate" if scan_layers is None else scan_layers
        target, source, op = FORMS[form.name, scanned]
        op = "; ".join(["merge 0"] * form.extra_axes + [op] * bool(op))
        lead = LEADING.get(form.name, 1) + form.extra_axes
        layer = [NHD_POST if nhd_post and r.source == NHD_POST.source else r for r in LAYER]
        layer = [Rule(r.target, r.source, (heads or {}).get(r.source, r.op)) for r in layer]
        if parallel:
            sources = {rule.source for rule in PARALLEL_NORMS}
            layer = [rule for rule in layer if rule.source not in sources] + [*PARALLEL_NORMS]
        for block in range(form.per_block if "@" in source else 1):
            numbered = source.replace("@", str(block))
            steps = op.replace("@", str(block)).replace("K", str(form.per_block))
            for rule in layer:
                names = (prefix + target + rule.target, ROOT + numbered + rule.source)
                own = [_behind(rule.op, lead)] if rule.op else []
                table.append(Rule(*names, "; ".join([*own, *[steps] * bool(steps)])))
                table += _quantized(Rule(*names, steps))
    return table + [quantized for rule in top for quantized in _quantized(rule, prefix, ROOT)]


def _behind(op: str, lead: int) -> str:
    """The same operations with all axes shifted by the `lead` axes that come first."""
    found = []
    for step in op.split("; "):
        name, *numbers = step.split()
        if name == "transpose":
            moved = [*map(str, range(lead)), *(str(int(axis) + lead) for axis in numbers)]
        else:  # split: an axis and two sizes
            moved = [str(int(numbers[0]) + lead), *numbers[1:]]
        found.append(" ".join([name, *moved]))
    return "; ".join(found)


def _quantized(rule: Rule, prefix: str = "", root: str = "") -> list[Rule]:
    """Rules for the scales and zero points beside a weight, in case it is quantized."""
    weight = rule.target.endswith(("/kernel", "/embedding"))
    if not weight or rule.source in (GSHARD.source, "softmax/w"):
        return []
    names = prefix + rule.target, root + rule.source
    return [Rule(names[0] + to, names[1] + name, rule.op) for name, to in QUANTIZED]
