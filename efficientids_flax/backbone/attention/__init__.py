"""Self-attention: queries, keys and values of a layer, and what the queries find.

Read `dot_product`, then `surroundings`, what all layers share, `softmax`, and `latents`, the keys
and values of DeepSeek.
"""

from efficientids_flax.backbone.attention.dot_product import Attention
from efficientids_flax.backbone.attention.surroundings import (
    Surroundings,
    make_surroundings,
    rotary_of,
)
from efficientids_flax.moved import left_names

__getattr__ = left_names(__name__)
