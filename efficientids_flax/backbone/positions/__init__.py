"""Positions in attention: rotary embeddings, ALiBi, T5's bias, Transformer-XL's relative keys.

Read `rotary`, then `frequencies`, which also scales them for long contexts, `alibi`,
`relative_bias` and `relative_keys`.
"""

from efficientids_flax.backbone.positions.alibi import linear_biases
from efficientids_flax.backbone.positions.relative_bias import RelativeBias
from efficientids_flax.backbone.positions.relative_keys import RelativeKeys
from efficientids_flax.backbone.positions.rotary import Turn, rotate, turn
