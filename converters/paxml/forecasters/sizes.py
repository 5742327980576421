"""Infers facts about a TimesFM model from the names and shapes of its tree; no values are read."""

import re
from collections.abc import Mapping

from converters.arrays import LeafSpec
from converters.paxml.infer import Facts
from converters.rules import forecaster_prefix

PARAMS, STACK = "mdl_vars/params/", "stacked_transformer_layer/"
FLOATS = {"float32", "bfloat16", "float16", "float64"}

# fmt: off
SIZED = (
    # leaf                                    key of each axis
    ("input_ff_layer/hidden_layer/linear/w",   ("2P", "hidden_dims")),
    ("input_ff_layer/output_layer/linear/w",   ("hidden_dims", "model_dims")),
    ("input_ff_layer/residual_layer/linear/w", ("2P", "model_dims")),
    ("freq_emb/emb_var",                       ("num_frequencies", "model_dims")),
    ("horizon_ff_layer/hidden_layer/linear/w", ("model_dims", "hidden_dims")),
    ("horizon_ff_layer/output_layer/linear/w", ("hidden_dims", "outputs")),
    ("horizon_ff_layer/residual_layer/linear/w", ("model_dims", "outputs")),
)
SIZED_LAYER = (
    ("self_attention/query/w",                 ("model_dims", "num_heads", "head_dim")),
    ("ff_layer/ffn_layer1/linear/w",           ("model_dims", "hidden_dims")),
)
# fmt: on


def forecaster_facts(specs: Mapping[str, LeafSpec]) -> Facts:
    """Facts with the keys of `TimesFMConfig`, and `outputs`, the product H (1 + Q) of its sizes.

    Args:
        specs: canonical leaf path -> description of every parameter.
    """
    facts = Facts()
    shapes = {
        path.removeprefix(PARAMS): spec.shape
        for path, spec in specs.items()
        if path.startswith(PARAMS)
    }
    prefix = forecaster_prefix(shapes)
    if prefix is None:
        facts.problems.append("no TimesFM tree: stacked_transformer_layer/x_layers_0 is missing")
        return facts
    own = {path.removeprefix(prefix): shape for path, shape in shapes.items()}
    layers = sorted(
        {int(n[1]) for path in own if (n := re.match(rf"{STACK}x_layers_(\d+)/", path))}
    )
    if layers != list(range(len(layers))):
        facts.problems.append(f"{STACK}: expected layers 0, 1, ..., found {layers[:20]}")
    facts.add("num_layers", len(layers), f"{prefix}{STACK}x_layers_<i>")
    for leaf, keys in SIZED:
        _add(facts, prefix + leaf, own.get(leaf), keys)
    for number in layers:
        for leaf, keys in SIZED_LAYER:
            place = f"{STACK}x_layers_{number}/{leaf}"
            _add(facts, prefix + place, own.get(place), keys)
    if "freq_emb/emb_var" not in own:
        facts.add("num_frequencies", 0, f"{prefix}freq_emb: missing")
    width = facts.known.pop("2P", None)
    if width is not None and width.value % 2:
        facts.problems.append(f"{width.where}: expected an even width, points and their padding")
    elif width is not None:
        facts.add("patch_length", width.value // 2, width.where)
    kinds = {spec.dtype.name for spec in specs.values()} & FLOATS
    if len(kinds) == 1:
        facts.add("param_dtype", kinds.pop(), "arrays", sure=False)
    return facts


def _add(facts: Facts, path: str, shape: tuple[int, ...] | None, keys: tuple[str, ...]) -> None:
    if shape is None:
        if not path.endswith("freq_emb/emb_var"):
            facts.problems.append(f"{path}: missing")
        return
    if len(shape) != len(keys):
        facts.problems.append(f"{path} {list(shape)}: expected {len(keys)} axes")
        return
    for key, size in zip(keys, shape, strict=True):
        facts.add(key, size, f"{path} {list(shape)}")
