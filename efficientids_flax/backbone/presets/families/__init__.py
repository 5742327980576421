"""The HuggingFace families as data: the meaning of each key of a `config.json`, and fixed settings.

Defaults for missing keys are those of the configuration classes of transformers 5.23
(`models/*/configuration_*.py`). The computation is that of `models/*/modeling_*.py`. Each family is
a row in the table of similar ones.

Read `family`, the columns of a row, then the tables `llama_like`, `gemma`, `layer_norm`,
`parallel`, `gpt`, `mixtures`, `alibi` and `large`. `parts` and `layers` have what they share,
`values` what holds for all, `multimodal` the models that contain one of these families.
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
