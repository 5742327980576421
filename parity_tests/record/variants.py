"""The table of what is recorded: variants of models and optimizers that real jobs have."""

from __future__ import annotations

from parity_tests.record.experiments import GPT, LLAMA, Variant, adam, put

REPEAT = {**GPT, "USE_REPEATED_LAYER": True}

VARIANTS = (
    Variant(
        "GptRepeatUnderscore",
        "repeat_prefix_sep '_', as in paxml.tasks.lm.params.lm_cloud",
        ("gda", "ocdbt", "flax"),
        settings=REPEAT,
        edits=(adam, put("train.learner.repeat_prefix_sep", "_")),
    ),
)
