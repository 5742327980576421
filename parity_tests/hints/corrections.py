"""Corrections of the usual causes of a difference; each yields the model without the fault.

A correction names where its fault can show (a regular expression of our path of the first
difference), and yields candidates. `hints` runs them. If the difference disappears with one of
them, that was the cause.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.settings import OPEN, OPEN_ITEMS
from parity_tests.compare import Difference
from parity_tests.hints.candidates import Candidate, Correction
from parity_tests.hints.parameter_corrections import (
    fused_order,
    layer_order,
    parameters,
    shifted_scale,
    swapped_gate,
    transposed,
)
from parity_tests.recording import Pass
from parity_tests.run import Subject

VALUES = {row.key: row.values for row in OPEN}  # values that a search for settings tries
ITEMS = {row.key: row.values for row in OPEN_ITEMS}

CAUSES = {
    "norm_scale_plus_one": "`1 +` on the norms' scale is missing or too much",
    "norm_epsilon": "the norms have another epsilon",
    "embedding_scale": "sqrt(D) on the embeddings is missing or too much",
    "activation": "the MLP has another activation",
    "attention_logit_cap": "the attention logits have another soft cap, or none",
    "query_scaling": "queries are scaled otherwise",
    "final_logit_cap": "the logits have another soft cap, or none",
    "scale_before_logits": "D^-0.5 before the logits is missing or too much",
    "soft_cap_logits": "the logits have another soft cap, or none",
    "use_correction": "the cluster's normaliser is subtracted, or is not",
}


def _setting(key: str) -> Any:
    """Makes a correction that tries other values of a setting of the decoder."""

    def candidates(subject: Subject, one: Pass, _: Difference) -> Iterator[Candidate]:
        now = getattr(subject.backbone, key)
        for value in VALUES[key]:
            if value == now:
                continue
            try:
                changed = subject.with_backbone(**{key: value})
            except ValueError:
                continue
            yield _other(key, now, value, changed, one, _prefix(subject))

    return candidates


def _prefix(subject: Subject) -> str:
    return "backbone." if isinstance(subject.config, EfficientIDSConfig) else ""


def _other(
    key: str, now: Any, value: Any, changed: Subject, one: Pass, prefix: str = ""
) -> Candidate:
    advice = f"--set {prefix}{key}={'null' if value is None else str(value).lower()}"
    return Candidate(f"{CAUSES[key]} ({key} is {now})", advice, changed, one)


def _pairing(subject: Subject, one: Pass, _: Difference) -> Iterator[Candidate]:
    """Try the other pairing of rotary dimensions, and other bases."""
    prefix = _prefix(subject)
    rotary = subject.backbone.rotary
    if rotary is None:
        return
    other = "half_split" if rotary.pairing == "interleaved" else "interleaved"
    changed = subject.with_backbone(rotary=replace(rotary, pairing=other))
    yield Candidate(
        f"rotary positions turn other pairs (rotary.pairing is {rotary.pairing})",
        f"--set {prefix}rotary.pairing={other}", changed, one,
    )  # fmt: skip
    for base in VALUES["rotary.max_timescale"]:
        if base != rotary.max_timescale:
            turned = subject.with_backbone(rotary=replace(rotary, max_timescale=base))
            advice = f"--set {prefix}rotary.max_timescale={base}"
            cause = (
                f"rotary positions of another base (rotary.max_timescale is {rotary.max_timescale})"
            )
            yield Candidate(cause, advice, turned, one)


def _items(key: str) -> Any:
    """Makes a correction that tries other values of a setting of the recommender."""

    def candidates(subject: Subject, one: Pass, _: Difference) -> Iterator[Candidate]:
        config = subject.config
        if not isinstance(config, EfficientIDSConfig):
            return
        now = getattr(config, key)
        for value in ITEMS[key]:
            if value != now:
                changed = replace(subject, config=replace(config, **{key: value}))
                yield _other(key, now, value, changed, one)

    return candidates


def _padding(subject: Subject, one: Pass, _: Difference) -> Iterator[Candidate]:
    """Try the batch without padding."""
    paddings = one.inputs.get("paddings")
    if paddings is None or not np.any(paddings):
        return
    shown = {k: v for k, v in one.inputs.items() if k not in ("paddings", "segment_ids")}
    yield Candidate(
        "padding is not masked in the original, or hidden from it: without `paddings` ours agrees",
        "record with the padding mask, or without `paddings`", subject,
        replace(one, inputs={**shown, "segment_ids": np.ones(paddings.shape, np.int32)}),
    )  # fmt: skip


LAYER = r"^layers_\d+$|^hidden_states/\d+$"  # a layer's output; some recordings have nothing else
EMBEDDED = (
    r"^(word_embeddings|layer_input|hidden_states/0|word_inputs|interleaved)$"
    r"|^layers_0/(pre_)?attention_norm$"
)
NORM = rf"norm$|{LAYER}"
KERNEL = rf"(query|key|value|out|up|gate|down|lm_head|word_logits)(/product)?$|{LAYER}"
SCORES = rf"attention/(probs|logits|mixed)$|{LAYER}"
# fmt: off
CORRECTIONS = (
    #          where it can show first           what to try
    Correction(r"attention/qkv(/product)?$",     parameters(fused_order)),
    Correction(rf"attention/rotated|{SCORES}",   _pairing),
    Correction(r"norm$",                         parameters(shifted_scale)),
    Correction(NORM,                             _setting("norm_scale_plus_one")),
    Correction(NORM,                             _setting("norm_epsilon")),
    Correction(EMBEDDED,                         _setting("embedding_scale")),
    Correction(KERNEL,                           parameters(transposed)),
    Correction(rf"mlp/(up|gate|activated|hidden)(/product)?$|{LAYER}",
                                                 parameters(swapped_gate)),
    Correction(rf"mlp/(activated|hidden)$|{LAYER}", _setting("activation")),
    Correction(r"^layers_|^hidden_states",       parameters(layer_order)),
    Correction(SCORES,                           _setting("attention_logit_cap")),
    Correction(rf"scaled_query$|{SCORES}",       _setting("query_scaling")),
    Correction(r"outputs/logits$",               _setting("final_logit_cap")),
    Correction(r"outputs/logits$",               _setting("scale_before_logits")),
    Correction(r"logits$",                       _items("soft_cap_logits")),
    Correction(r"outputs/logits$",               _items("use_correction")),
    Correction(r"query$|logits$",                _items("scale_before_logits")),
    Correction(r".",                             _padding),
)
# fmt: on
