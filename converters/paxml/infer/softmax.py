"""Translates what a job's dump says about the head: Praxis' softmax layers to our settings.

Covers `FullSoftmax`, `SharedEmbeddingSoftmax`, `NClassMajorSharedEmbeddingSoftmax` and
`GShardSharedEmbeddingSoftmax` of Praxis 1.4.0. The last has its own settings and averages the loss
over all positions.
"""

from converters.paxml.infer.dump import Dump

BY_WORD, GSHARD = "NClassMajorSharedEmbeddingSoftmax", "GShardSharedEmbeddingSoftmax"
SOFTMAXES = ("SharedEmbeddingSoftmax", "FullSoftmax", BY_WORD, GSHARD)

# fmt: off
LOSS = (
    # key                        path                                  Praxis' default
    ("final_logit_cap",          "{softmax}.soft_cap_logits",          0.0),
    ("z_loss_weight",            "{softmax}.z_loss_weight",            0.0),
)
FULL = (
    ("scale_before_logits",      "{softmax}.scale_before_logits",      False),
    ("label_smoothing",          "{softmax}.label_smoothing_prob",     0.0),
    ("label_smoothing_in_eval",  "{softmax}.label_smoothing_apply_for_eval", True),
)
# fmt: on


def read_softmax(dump: Dump, *, head: bool) -> None:
    """Add the facts about the head.

    Args:
        dump: the dump to read; it receives the facts.
        head: whether the cap, smoothing and z-loss of the head belong to the decoder.
    """
    kind = dump.class_of("{lm}.softmax_tpl", "")
    bias = "{softmax}.use_bias" if kind == BY_WORD else "{softmax}.feed_forward_tpl.has_bias"
    if kind == GSHARD:
        dump.add("lm_head_bias", "{softmax}.cls", False)
    else:
        dump.add("lm_head_bias", bias, dump.get(bias, True))
    if not head:
        return
    for key, path, default in LOSS + (() if kind == GSHARD else FULL):
        dump.add(key, path, dump.get(path, default))
    own = "model.label_smoothing_prob"  # `BertModel` passes it to its head
    if kind != GSHARD and dump.get(own, None) is not None:
        dump.facts.known.pop("label_smoothing", None)
        dump.add("label_smoothing", own, dump.number(own, 0.0))
    if kind == GSHARD:
        _gshard(dump)


def _gshard(dump: Dump) -> None:
    """Facts about the GShard head: hidden states times D^-0.5, clipped logits, and another loss."""
    dump.add("scale_before_logits", "{softmax}.cls", True)
    path = "{softmax}.logits_abs_max"
    dump.add("logits_clip", path, dump.number(path, 0) or None)
    # It gives the other classes p / V each and the label the rest; ours divides p among V - 1.
    path, words = "{softmax}.label_smoothing_prob", dump.size("{lm}.vocab_size")
    share = (words - 1) / words if words else 1.0
    dump.add("label_smoothing", path, dump.number(path, 0.0) * share)
    dump.add("label_smoothing_in_eval", "{softmax}.cls", False)
    path = "{softmax}.use_tgt_labels_size_as_loss_denominator"
    dump.add("loss_average", path, "positions" if dump.get(path, True) else "weights")
