"""Reads the settings of the item side of an EfficientIDs model from a PAXml tree and a dump.

Dimensions: D model width, E item width, I items, K clusters.
"""

import re
from collections.abc import Mapping

from converters.arrays import LeafSpec
from converters.paxml.infer.dump import Dump
from converters.paxml.infer.facts import Facts, Leaves
from converters.paxml.infer.tree import LM, backbone_facts

# fmt: off
SOFTMAX = (
    # key                           path below softmax_tpl           default
    ("num_items",                   "num_item_classes",              None),
    ("item_embedding_dim",          "item_input_dims",               None),
    ("num_clusters",                "num_clusters",                  None),
    ("input_adapter_everywhere",    "use_item_input_dnn_everywhere", True),
    ("full_softmax",                "full_softmax",                  False),
    ("use_correction",              "correction",                    False),
    ("scale_before_logits",         "scale_before_logits",           False),
    ("soft_cap_logits",             "soft_cap_logits",               0.0),
    ("label_smoothing",             "label_smoothing_prob",          0.0),
    ("second_label_smoothing",      "second_label_smoothing_prob",   0.0),
    ("label_smoothing_in_eval",     "label_smoothing_apply_for_eval", True),
    ("z_loss_weight",               "z_loss_weight",                 0.0),
    ("trainable_cluster_embeddings", "trainable_cluster_embeddings", False),
)
# fmt: on


def recommender_facts(specs: Mapping[str, LeafSpec]) -> Facts:
    """Facts about the item side and its backbone, with the keys of `EfficientIDSConfig`."""
    facts = Facts()
    facts.put("backbone.", backbone_facts(specs))
    root = f"{LM}softmax/"
    side = Leaves(
        root, {p.removeprefix(root): s.shape for p, s in specs.items() if p.startswith(root)}
    )
    items, clusters = "logits_ffn_item/linear/w", "logits_ffn_cluster/linear/w"
    if shape := side.find(facts, items, 2):
        facts.add("item_embedding_dim", shape[0], side.where(items))
        facts.add("num_items", shape[1], side.where(items))
    facts.add("trainable_cluster_embeddings", clusters in side, root + clusters)
    if clusters in side and (shape := side.find(facts, clusters, 2)):
        facts.add("item_embedding_dim", shape[0], side.where(clusters))
        facts.add("num_clusters", shape[1], side.where(clusters))
    output = "item_output_dnn/mlp_layers_0/linear/w" in side
    facts.add("input_adapter_everywhere", not output, f"{root}item_output_dnn")
    _adapter_facts(facts, side, "input")
    if output:
        _adapter_facts(facts, side, "output")
    else:
        facts.add("output_adapter", None, f"no {root}item_output_dnn")
    return facts


def _adapter_facts(facts: Facts, side: Leaves, way: str) -> None:
    """Facts about layers and widths of `item_{way}_dnn`, which maps E to D or back."""
    pattern = re.compile(rf"item_{way}_dnn/mlp_layers_(\d+)/linear/w")
    layers = {int(m[1]): leaf for leaf in side.shapes if (m := pattern.fullmatch(leaf))}
    key = f"{way}_adapter"
    if sorted(layers) != list(range(len(layers))) or not layers:
        facts.problems.append(f"{side.root}item_{way}_dnn: found layers {sorted(layers)}")
        return
    found = [side.find(facts, layers[index], 2) for index in range(len(layers))]
    shapes = [shape for shape in found if shape is not None]
    first, last = side.where(layers[0]), side.where(layers[len(layers) - 1])
    facts.add(f"{key}.num_layers", len(layers), last)
    if len(shapes) < len(layers):
        return
    ends = ("item_embedding_dim", "backbone.model_dims")
    start, end = ends if way == "input" else ends[::-1]
    facts.add(start, shapes[0][0], first)
    facts.add(end, shapes[-1][1], last)
    if len(layers) > 1:
        facts.add(f"{key}.hidden_dims", shapes[0][1], first)
    else:
        facts.add(f"{key}.hidden_dims", None, first)


def read_items(dump: Dump) -> None:
    """Add the facts about the item side, with the keys of `EfficientIDSConfig`.

    The classes are the original's own (`interleaved_transformer_lm.SharedEmbeddingSoftmax`).
    """
    if not any(path.startswith("model.") for path in dump.values):
        return
    for key, name, default in SOFTMAX:
        path = f"{{softmax}}.{name}"
        value = dump.get(path, default)
        if key == "trainable_cluster_embeddings":
            full = dump.get("{softmax}.full_softmax", False)  # then there are no cluster embeddings
            value = value and not full
        if value is not None:
            dump.add(key, path, value)
    ways = ["input"]
    if not dump.get("{softmax}.use_item_input_dnn_everywhere", True):
        ways.append("output")
    for way in ways:
        block = f"{{softmax}}.item_{way}_dnn_tpl"
        if not dump.has(block):
            continue
        layers = dump.size(f"{block}.num_layers", 3)
        dump.add(f"{way}_adapter.num_layers", f"{block}.num_layers", layers)
        if layers > 1:
            path = f"{block}.hidden_dims"
            dump.add(f"{way}_adapter.hidden_dims", path, dump.get(path, 128))
        dump.activation(f"{way}_adapter.activation", f"{block}.ff_tpl.activation_tpl")
        if not dump.get(f"{block}.activate_final", True):
            dump.refuse(f"{block}.activate_final", False)
