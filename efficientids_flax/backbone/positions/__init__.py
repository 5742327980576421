"""Positions in attention: rotary embeddings and T5's relative bias.

Read `rotary`, then `frequencies`, how contexts are stretched, and `relative_bias`.
"""

from efficientids_flax.backbone.positions.relative_bias import RelativeBias
from efficientids_flax.backbone.positions.rotary import Turn, rotate, turn
