"""A mixture of experts in place of an MLP.

Read `mixture`, the layer, then `routing`, how tokens find their experts.
"""

from efficientids_flax.backbone.experts.mixture import LOSSES, RANDOM, Experts
