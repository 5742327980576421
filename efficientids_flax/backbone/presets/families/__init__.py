"""The HuggingFace families as data: which key of a `config.json` says what, what a family fixes.

Defaults are those of the configuration classes of transformers 5.23
(`models/*/configuration_*.py`): a missing key means them. The computation is that of
`models/*/modeling_*.py`. A family is a row in the table of its kin.

Read `family`, what a row has, then the tables `llama_like`, `gemma`, `layer_norm`, `parallel`,
`gpt`, `mixtures`, `alibi` and `large`; `parts` and `layers` are what they share, `values` what
holds for all, `multimodal` who else holds one of them.
"""

from collections.abc import Mapping

from efficientids_flax.backbone.presets.families import (
    alibi,
    gemma,
    gpt,
    large,
    layer_norm,
    llama_like,
    mixtures,
    parallel,
)
from efficientids_flax.backbone.presets.families.family import Family, LayerTypes, Values
from efficientids_flax.backbone.presets.families.layers import no_rotary_layers
from efficientids_flax.backbone.presets.families.multimodal import TEXTS, WRAPPERS
from efficientids_flax.backbone.presets.families.values import (
    ACTIVATIONS,
    CAUSAL,
    IRRELEVANT,
    REFUSED,
)

FAMILIES: Mapping[str, Family] = {
    **llama_like.FAMILIES,
    **gemma.FAMILIES,
    **layer_norm.FAMILIES,
    **parallel.FAMILIES,
    **gpt.FAMILIES,
    **mixtures.FAMILIES,
    **alibi.FAMILIES,
    **large.FAMILIES,
}
