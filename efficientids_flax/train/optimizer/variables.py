"""Each parameter as the original's optimizer sees it: name, stacked layers, regularisation.

Regexes of PAXml's learner are matched against PAXml's names of the variables. Clipping, factoring
and quantisation act on one layer at a time.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax

from efficientids_flax.config import BackboneConfig, NormPlace
from efficientids_flax.config import TimesFMConfig as Forecaster
from efficientids_flax.parameters import BACKBONE, DECODER, ModelConfig
from efficientids_flax.tree import flatten, unflatten

Model = ModelConfig | None
Variables = Callable[[str], "Variable"]  # of a parameter's path

# fmt: off
NAMES: Mapping[str, str] = {
    # ours                              praxis.layers.transformer_models.TransformerLm, below lm/
    "embedder/embedding":               "embedding_lookup/emb_var",
    "position_embedding/embedding":     "position_emb/emb_var",
    "final_norm":                       "final_ln",
    "lm_head/kernel":                   "softmax/logits_ffn/linear/w",
    "lm_head/bias":                     "softmax/logits_ffn/bias/b",
    "item_embedding/kernel":            "softmax/logits_ffn_item/linear/w",
    "cluster_embedding/kernel":         "softmax/logits_ffn_cluster/linear/w",
}
LAYER_NAMES: Mapping[str, str] = {
    # ours                              below transformer/x_layers_i/
    "attention/query/kernel":           "self_attention/query/w",
    "attention/query/bias":             "self_attention/query/b",
    "attention/key/kernel":             "self_attention/key/w",
    "attention/key/bias":               "self_attention/key/b",
    "attention/value/kernel":           "self_attention/value/w",
    "attention/value/bias":             "self_attention/value/b",
    "attention/qkv/kernel":             "self_attention/combined_qkv/w",
    "attention/qkv/bias":               "self_attention/combined_qkv/b",
    "attention/out/kernel":             "self_attention/post/w",
    "attention/out/bias":               "self_attention/post/b",
    "attention/per_dim_scale":          "self_attention/per_dim_scale/per_dim_scale",
    "attention/relative_bias/embedding": "self_attention/relative_bias/wrb",
    "attention/relative_key/kernel":    "self_attention/pos_proj/w",
    "attention/relative_key/key_bias":  "self_attention/u",
    "attention/relative_key/distance_bias": "self_attention/v",
    "attention_norm":                   "layer_norm",
    "pre_attention_norm":               "pre_layer_norm",
    "post_attention_norm":              "post_layer_norm",
    "mlp_norm":                         "ff_layer/layer_norm",
    "pre_mlp_norm":                     "ff_layer/pre_layer_norm",
    "post_mlp_norm":                    "ff_layer/post_layer_norm",
    "mlp/up/kernel":                    "ff_layer/ffn_layer1/linear/w",
    "mlp/up/bias":                      "ff_layer/ffn_layer1/bias/b",
    "mlp/gate/kernel":                  "ff_layer/ffn_layer1_gate/linear/w",
    "mlp/gate/bias":                    "ff_layer/ffn_layer1_gate/bias/b",
    "mlp/down/kernel":                  "ff_layer/ffn_layer2/linear/w",
    "mlp/down/bias":                    "ff_layer/ffn_layer2/bias/b",
    "moe/router/kernel":                "ff_layer/gate",
    "moe/up/kernel":                    "ff_layer/wi_0",
    "moe/gate/kernel":                  "ff_layer/wi_gate_0",
    "moe/down/kernel":                  "ff_layer/wo_0",
}
BLOCK_NAMES: Mapping[str, str] = {
    # ours                              of a TimesFM model that is fine-tuned, below core_layer/
    "kernel":                           "linear/w",
    "bias":                             "bias/b",
}
# fmt: on
_BLOCK = re.compile(r"(input|horizon)_block/(hidden|output|residual)/(kernel|bias)")
_LAYER = re.compile(r"layers(?:_(?P<layer>\d+)|(?:/block_(?P<block>\d+))?)/(?P<rest>.+)")
_ADAPTER = re.compile(r"item_(input|output)_adapter/layers_(\d+)/(kernel|bias)")
_NORM = re.compile(r"(?:layers(?:_(\d+))?/(?:block_(\d+)/)?)?(.+)_norm/(?:scale|bias)")
_NORM_PLACES: Mapping[str, NormPlace] = {
    "mlp": "mlp", "pre_mlp": "mlp", "post_mlp": "mlp", "final": "final",
    "attention/query": "query_key", "attention/key": "query_key",
}  # fmt: skip


class Variable(NamedTuple):
    """A parameter as PAXml's learner sees it.

    Attributes:
        name: path of the variable, 'params/lm/...'.
        stacked: number of leading axes over layers; each layer counts as a variable of its own.
        regularized: whether l1, l2 and `decoupled_weight_decay` act on it (Praxis excludes scale
            and bias of LayerNorm); None: unknown.
    """

    name: str
    stacked: int
    regularized: bool | None


def variables_of(
    model: Model, vectorized: bool = True, names: Mapping[str, str] | None = None
) -> Variables:
    """How a model's parameters appear in PAXml.

    Args:
        model: the model's configuration; None for a tree with PAXml's own paths.
        vectorized: `vectorize_on_repeat_prefix` of the learner.
        names: path -> PAXml's name, 'params/...', if the original stored its layers in another form
            than here (unscanned, pipelined). By default scanned layers map to repeated ones.

    Returns:
        A function from a parameter's path to its `Variable`.
    """

    def find(path: str) -> Variable:
        name = (names or {}).get(path) or f"params/{_name(model, path)}"
        if model is None:
            # `repeat/sub` and `pipeline/body` each put an axis of layers before a variable's own.
            keys = path.split("/")
            stacked = ("repeat" in keys) + ("pipeline" in keys)
            return Variable(name, stacked * vectorized, None)
        backbone = model if isinstance(model, BackboneConfig) else model.backbone
        inner = path.removeprefix(DECODER if isinstance(model, Forecaster) else BACKBONE)
        stacked = int(inner.startswith("layers/"))
        if found := _LAYER.fullmatch(inner):
            backbone = backbone.of_layer(int(found["layer"] or found["block"] or 0))
        return Variable(name, stacked * vectorized, not _is_layer_norm(backbone, inner))

    return find


def _is_layer_norm(config: BackboneConfig, path: str) -> bool:
    """Whether a parameter of the decoder belongs to a LayerNorm."""
    found = _NORM.fullmatch(path)
    if found is None:
        return False
    place = _NORM_PLACES.get(found[3], "attention")
    layer = int(found[1] or found[2] or 0)
    if place == "mlp" and config.moe is not None and layer in config.moe.layers:
        place = "moe"
    return config.of_norm(place).norm == "layer_norm"


def _name(model: Model, path: str) -> str:
    """Path -> PAXml's name below `params/`; a path without such a name stays as it is."""
    if model is None:
        return path
    if isinstance(model, Forecaster):
        return _forecaster_name(path)
    if found := _ADAPTER.fullmatch(path):
        side, layer, leaf = found.groups()
        place = "linear/w" if leaf == "kernel" else "bias/b"
        return f"lm/softmax/item_{side}_dnn/mlp_layers_{layer}/{place}"
    inner = path.removeprefix(BACKBONE)
    found = _LAYER.fullmatch(inner)
    if found is None:
        renamed, place = _renamed(NAMES, inner), ""
    else:
        layer, block, rest = found.group("layer", "block", "rest")
        renamed = _renamed(LAYER_NAMES, rest)
        place = f"x_layers_{layer}/" if layer else f"repeat/sub/x_layers_{block or 0}/"
        place = f"transformer/{place}"
    return f"lm/{place}{renamed}" if renamed else path


def _forecaster_name(path: str) -> str:
    """The name in the model that the `timesfm` package fine-tunes."""
    if found := _BLOCK.fullmatch(path):
        end, part, leaf = found.groups()
        return f"core_layer/{end}_ff_layer/{part}_layer/{BLOCK_NAMES[leaf]}"
    found = _LAYER.fullmatch(path.removeprefix(DECODER))
    renamed = _renamed(LAYER_NAMES, found["rest"]) if found is not None else None
    if found is None or renamed is None:
        return "core_layer/freq_emb/emb_var" if found is None else path
    # Layers that are scanned here are one variable; the original has one for each.
    return f"core_layer/stacked_transformer_layer/x_layers_{found['layer'] or 0}/{renamed}"


def _renamed(table: Mapping[str, str], path: str) -> str | None:
    """Look a path up in a table, whole or (for norms) without its last part."""
    if path in table:
        return table[path]
    head, _, leaf = path.rpartition("/")
    return f"{table[head]}/{leaf}" if head in table else None


def map_variables(
    function: Callable[..., tuple[jax.Array, ...]], variables: Variables, *trees: Any
) -> dict[str, tuple[jax.Array, ...]]:
    """Apply a function to every variable; to each layer of stacked ones separately.

    Args:
        function: (variable, *values) -> results; values and results have no axis of layers.
        variables: tells which parameters have such axes.
        trees: nested dicts; all have the paths of the first.

    Returns:
        Path -> results.
    """
    first, *others = [flatten(tree) for tree in trees]
    return {
        path: _by_layer(function, variables(path))(value, *(tree[path] for tree in others))
        for path, value in first.items()
    }


def column(results: Mapping[str, tuple[jax.Array, ...]], index: int) -> dict[str, Any]:
    """The tree of one of the results that `map_variables` returned."""
    return unflatten({path: found[index] for path, found in results.items()})


def _by_layer(function: Callable[..., Any], variable: Variable) -> Callable[..., Any]:
    act = partial(function, variable)
    for _ in range(variable.stacked):
        act = jax.vmap(act)
    return act
