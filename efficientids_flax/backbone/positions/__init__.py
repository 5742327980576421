"""Positions in attention: rotary embeddings, T5's relative bias, Transformer-XL's relative keys.

Read `rotary`, then `frequencies`, how contexts are stretched, `relative_bias` and `relative_keys`.
"""

from efficientids_flax.backbone.positions.relative_bias import RelativeBias
from efficientids_flax.backbone.positions.relative_keys import RelativeKeys
from efficientids_flax.backbone.positions.rotary import Turn, rotate, turn
