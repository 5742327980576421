"""Positions in attention: rotary embeddings, linear and T5's biases, Transformer-XL's keys.

Read `rotary`, then `frequencies`, how contexts are stretched, `alibi`, `relative_bias` and
`relative_keys`.
"""

from efficientids_flax.backbone.positions.alibi import linear_biases
from efficientids_flax.backbone.positions.relative_bias import RelativeBias
from efficientids_flax.backbone.positions.relative_keys import RelativeKeys
from efficientids_flax.backbone.positions.rotary import Turn, rotate, turn
