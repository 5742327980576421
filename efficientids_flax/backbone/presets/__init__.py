"""HuggingFace's `config.json` as a `BackboneConfig`, by tables of families. Needs no JAX.

Read the tables in `families`, then `read`. `text_part` finds the language model in a multimodal
one, `keys` classifies the keys of a file, `rotary` reads rotary positions, `folder` finds the
files, `tokenizer` loads a model's tokenizer.
"""

from efficientids_flax.backbone.presets.families import (
    ACTIVATIONS,
    FAMILIES,
    IRRELEVANT,
    REFUSED,
    Family,
)
from efficientids_flax.backbone.presets.folder import pretrained_folder
from efficientids_flax.backbone.presets.read import (
    backbone_config,
    config_of,
    model_type,
    read_config_json,
)
from efficientids_flax.backbone.presets.rotary import SCALING_KEYS
from efficientids_flax.backbone.presets.text_part import (
    UnsupportedConfigError,
    says_no_head,
    text_part,
)
from efficientids_flax.backbone.presets.tokenizer import load_tokenizer
