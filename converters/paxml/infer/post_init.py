"""Translates the dump of the built layers, `post_init_model_params.txt`, to `model_params.txt`.

Its paths follow the variables (`lm.transformer.x_layers_0.ff_layer._hparams.has_bias`). The paths
of `model_params.txt` follow the templates
(`model.lm_tpl.stacked_transformer_tpl.transformer_layer_params_tpl.…`). Templates are all
`NoneType` here; a layer that was built from one shows that it existed.
"""

import re
from collections.abc import Mapping
from typing import Any

LM = "model.lm_tpl"
STACK = f"{LM}.stacked_transformer_tpl"

_STACKED = r"(?P<stack>.*)"
_LAYER = r"(?P<layer>.*_\d+)"
_ITEMS = r"lm\.softmax\.(item_(?:in|out)put_dnn)"
_FF = "{layer}.tr_fflayer_tpl"
_ATTEN = "{layer}.tr_atten_tpl"

# fmt: off
_LAYERS = (
    # built layer                                             template
    (r"",                                                     "model"),
    (r"lm",                                                   LM),
    (r"lm\.(final_ln|position_emb|softmax)",                  rf"{LM}.\1_tpl"),
    (r"lm\.embedding_lookup",                                 f"{LM}.separate_embedding_tpl"),
    (_ITEMS,                                                  rf"{LM}.softmax_tpl.\1_tpl"),
    (_ITEMS + r"\.mlp_layers_0\.activation",   rf"{LM}.softmax_tpl.\1_tpl.ff_tpl.activation_tpl"),
    (r"lm\.transformer",                                      STACK),
    (_STACKED + r"\.repeat\.sub",                             "{stack}.block"),
    (_STACKED + r"\.pipeline\.body",                          "{stack}.pipeline_stage"),
    (_STACKED + r"\.x_layers_\d+",                          "{stack}.transformer_layer_params_tpl"),
    (_LAYER + r"\.(?:pre_)?layer_norm",                       "{layer}.ln_tpl"),
    (_LAYER + r"\.self_attention",                            _ATTEN),
    (_LAYER + r"\.self_attention\.(rotary_position_emb|relative_bias)", _ATTEN + r".\2_tpl"),
    (_LAYER + r"\.self_attention\.layer_norm_q",              _ATTEN + ".ln_tpl"),
    (_LAYER + r"\.ff_layer",                                  _FF),
    (_LAYER + r"\.ff_layer\.(?:pre_)?layer_norm",             _FF + ".ln_tpl"),
    (_LAYER + r"\.ff_layer\.ffn_layer1(?:_gate)?\.activation", _FF + ".activation_tpl"),
    (_LAYER + r"\.ff_layer\.activation",                      _FF + ".activation_tpl"),
)
# fmt: on
_MOE = "TransformerFeedForwardMoe"
_NUMBER = re.compile(r"\.x_layers_(\d+)(?:\.|$)")
TEMPLATE = "transformer_layer_params_tpl"
# Each layer has its own value of these in any model: its name, and its rate of dropped paths.
APART = (".name", ".residual_droppath_prob")


def as_model_params(built: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a dump of the built layers to the paths and values of `model_params.txt`.

    The first layer of each kind (MLP, experts) in a stack represents all of them. If layers differ,
    each gets a template of its own, as in a list of templates.

    Args:
        built: path -> value, from the first section of the file.
    """
    found: dict[str, Any] = {}
    layers: dict[str, dict[str, Any]] = {}  # number -> template -> value
    experts = {
        path.removesuffix("._hparams.cls")
        for path, value in built.items()
        if path.endswith(".ff_layer._hparams.cls") and getattr(value, "name", "") == _MOE
    }
    for path, value in built.items():
        layer, separator, name = path.rpartition("_hparams.")
        layer = layer.rstrip(".")
        if not separator or (value is None and name.endswith(("_tpl", "block", "pipeline_stage"))):
            continue
        if template := _template(layer):
            # A gated MLP has its activation on the gate; skip the identity beside it.
            if template.endswith("activation_tpl") and getattr(value, "name", "") == "Identity":
                continue
            if any(layer == place or layer.startswith(f"{place}.") for place in experts):
                template = template.replace(
                    "transformer_layer_params_tpl.tr_fflayer_tpl", "moe_layer_tpl"
                )
            place = f"{template}.{name}"
            found.setdefault(place, value)
            if TEMPLATE in place and (number := _NUMBER.search(layer)):
                layers.setdefault(number[1], {})[place] = value
    if _differ(layers):
        for number, own in layers.items():
            for place, value in own.items():
                found.pop(place, None)
                found[place.replace(TEMPLATE, f"{TEMPLATE}[{number}]")] = value
    found.setdefault(f"{LM}.position_emb_tpl.cls", None)
    if found[f"{LM}.position_emb_tpl.cls"] is None:
        found[f"{LM}.position_emb_tpl"] = found.pop(f"{LM}.position_emb_tpl.cls")
    return found


def _differ(layers: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether layers differ in a value that both have, other than those in `APART`."""
    first: dict[str, Any] = {}
    return any(
        first.setdefault(place, value) != value
        for own in layers.values()
        for place, value in own.items()
        if not place.endswith(APART)
    )


def _template(layer: str) -> str | None:
    """Path of the template that a layer was built from; None for layers that are not needed."""
    for pattern, template in reversed(_LAYERS):
        if match := re.fullmatch(pattern, layer):
            outer = {name: _template(value) for name, value in match.groupdict().items()}
            return None if None in outer.values() else match.expand(template).format(**outer)
    return None
