"""A mixture of experts in place of an MLP.

Read `mixture`, Praxis' layer, then `routing`, how its tokens find experts; `top_k`, the layer that
drops none, then `choice`, which experts are a token's, `grouped`, the experts' products, and
`blocks`, the walk over their rows.
"""

from efficientids_flax.backbone.experts.mixture import LOSSES, RANDOM, Experts
from efficientids_flax.backbone.experts.top_k import TopKExperts
