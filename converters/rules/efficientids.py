# ruff: noqa: E501
"""The EfficientIDs recommender: a `TransformerLm` whose softmax layer is extended with items.

Letters: E item width, I items, K clusters, D model width. See arXiv 2509.03746.
"""

from collections.abc import Mapping

from converters.rules import transformer_lm
from converters.rules.language import Rule
from converters.rules.transformer_lm import LayerForm

BACKBONE = "pretrained_lm/"  # so that `frozen_params=['pretrained_lm']` freezes the language model
MARK = "lm/softmax/logits_ffn_item/"  # distinguishes this family from a plain language model

# fmt: off
ITEMS = (
    # target                                  source
    Rule("item_embedding/kernel",                 "lm/softmax/logits_ffn_item/linear/w"),     # [E, I]
    Rule("cluster_embedding/kernel",              "lm/softmax/logits_ffn_cluster/linear/w"),  # [E, K]
    Rule("item_input_adapter/layers_{i}/kernel",  "lm/softmax/item_input_dnn/mlp_layers_{i}/linear/w"),   # E .. D
    Rule("item_input_adapter/layers_{i}/bias",    "lm/softmax/item_input_dnn/mlp_layers_{i}/bias/b"),
    Rule("item_output_adapter/layers_{i}/kernel", "lm/softmax/item_output_dnn/mlp_layers_{i}/linear/w"),  # D .. E
    Rule("item_output_adapter/layers_{i}/bias",   "lm/softmax/item_output_dnn/mlp_layers_{i}/bias/b"),
)
# fmt: on


def rules(
    form: LayerForm | None,
    scan_layers: bool | None = None,
    nhd_post: bool = False,
    heads: Mapping[str, str] | None = None,
) -> list[Rule]:
    """Make the table for layers that are stored in `form`; see `transformer_lm.rules`."""
    own = transformer_lm.rules(form, scan_layers, BACKBONE, nhd_post=nhd_post, heads=heads)
    return [*own, *ITEMS]
