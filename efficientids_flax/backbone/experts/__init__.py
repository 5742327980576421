"""A mixture of experts in place of an MLP.

Read `mixture`, Praxis' layer, then `routing`, how it assigns tokens to experts; `top_k`, the layer
that drops no tokens, then `choice`, how it selects a token's experts, `grouped`, the experts'
products, and `blocks`, the loop over their rows.
"""

from efficientids_flax.backbone.experts.mixture import LOSSES, RANDOM, Experts
from efficientids_flax.backbone.experts.top_k import TopKExperts
