"""Edits that make variants by changing a task's configuration."""

from __future__ import annotations

from typing import Any

import optax
from paxml import learners
from praxis import optimizers, pax_fiddle
from praxis.layers import grouped_query_attention, normalizations

from parity_tests.record.models.experiments import Edit


def optimizer(cls: Any, **values: Any) -> Edit:
    """Make an edit that gives the learner this optimizer, with the default schedule."""

    def edit(task: Any) -> None:
        schedule = task.train.learner.optimizer.lr_schedule
        task.train.learner.optimizer = pax_fiddle.Config(
            cls, learning_rate=1e-2, lr_schedule=schedule, **values
        )

    return edit


def optax_optimizer(task: Any) -> None:
    """An edit that uses `optax.adamw`, wrapped as an optimizer of Praxis."""
    task.train.learner.optimizer = pax_fiddle.Config(
        optimizers.OptaxOptimizer,
        grad_tx=pax_fiddle.Config(optax.adamw, 1e-2, b1=0.9, b2=0.99),
        learning_rate=1e-2,
        lr_schedule=task.train.learner.optimizer.lr_schedule,
        ema_decay=0.99,
    )


def adafactor(**values: Any) -> Edit:
    """Make an edit that changes fields of the default ShardedAdafactor."""

    def edit(task: Any) -> None:
        for name, value in values.items():
            setattr(task.train.learner.optimizer, name, value)

    return edit


def experts(every: int, count: int = 3, gated: bool = False, inside: str = "") -> Edit:
    """Make an edit that turns every `every`-th layer into a mixture of experts."""

    def edit(task: Any) -> None:
        stack = task.model.lm_tpl.stacked_transformer_tpl
        stack = getattr(stack, inside) if inside else stack
        stack.num_experts, stack.num_groups, stack.min_group_size = count, 1, None
        stack.moe_layers = list(range(every - 1, stack.num_layers, every))
        moe, plain = stack.moe_layer_tpl, stack.transformer_layer_params_tpl.tr_fflayer_tpl
        moe.hidden_dims, moe.unadjusted_expert_capacity_factor = 12, 2
        moe.activation_tpl, moe.ln_tpl = plain.activation_tpl.clone(), plain.ln_tpl.clone()
        moe.use_gated_activation = gated

    return edit


def layers_per_block(count: int, times: int) -> Edit:
    """Make an edit that repeats a block of several layers."""

    def edit(task: Any) -> None:
        stack = task.model.lm_tpl.stacked_transformer_tpl
        stack.block.num_layers, stack.x_times = count, times

    return edit


def two_optimizers(task: Any) -> None:
    """An edit that uses Adam for the embeddings, and ShardedAdafactor for the rest."""
    own = task.train.learner
    first = own.optimizer
    second = pax_fiddle.Config(
        optimizers.Adam, beta1=0.9, beta2=0.99, learning_rate=1e-2,
        lr_schedule=first.lr_schedule.clone(),
    )  # fmt: skip
    task.train.learner = pax_fiddle.Config(
        learners.MultiOptimizerLearner,
        loss_name="total_loss",
        optimizer=first,
        auxiliary_optimizers=[second],
        auxiliary_regex=[".*softmax.*"],
        auxiliary_names=["embeddings"],
    )


def grouped_heads(place: str, kv_heads: int) -> Edit:
    """Make an edit that uses grouped attention (or multi-query attention, with one key head)."""

    def edit(task: Any) -> None:
        layer = task.model.lm_tpl.stacked_transformer_tpl
        layer = (layer.block if place == "block" else layer).transformer_layer_params_tpl
        layer.tr_atten_tpl = pax_fiddle.Config(
            grouped_query_attention.GroupedQueryAttention, num_kv_heads=kv_heads,
            rope_min_max_timescales=(1, 10_000), atten_logit_cap=0.0,
        )  # fmt: skip

    return edit


def rms_norms(place: str) -> Edit:
    """Make an edit that replaces every LayerNorm by an RmsNorm."""

    def edit(task: Any) -> None:
        model = task.model.lm_tpl
        layer = model.stacked_transformer_tpl
        layer = (layer.block if place == "block" else layer).transformer_layer_params_tpl
        norm = pax_fiddle.Config(normalizations.RmsNorm, direct_scale=True)
        layer.ln_tpl, layer.tr_fflayer_tpl.ln_tpl = norm.clone(), norm.clone()
        model.final_ln_tpl = norm.clone()

    return edit
