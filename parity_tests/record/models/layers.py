"""More rows of the table of models: layers that differ, other attention, heads and batches."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from paxml.contrib.gpu.scripts_gpu import saxml_layers
from praxis import pax_fiddle
from praxis.layers import (
    activations,
    attentions,
    glam,
    models,
    multi_query_attention,
    normalizations,
)
from praxis.layers.transformer_models import LanguageModelType

from parity_tests.record.models.edits import layers_per_block
from parity_tests.record.models.experiments import Edit, adam, put
from parity_tests.record.models.decoders import (
    ATTENTION,
    LM,
    ONE,
    REPEAT,
    ROTARY,
    STACK,
    TIME,
    UNPACKED,
    WORDS,
    Model,
    attention,
    packed,
    relative_bias,
    unpacked,
)


def templates(*edits: Any, inside: str = "") -> Edit:
    """Make an edit that gives each layer a template: changed clones of the only one."""

    def edit(task: Any) -> None:
        stack = task.model.lm_tpl.stacked_transformer_tpl
        stack = getattr(stack, inside) if inside else stack
        made = [stack.transformer_layer_params_tpl.clone() for _ in edits]
        for template, change in zip(made, edits):
            change(template)
        stack.transformer_layer_params_tpl = made

    return edit


def parallel(policy: str, skip: bool, inside: str = "") -> Edit:
    """Make an edit that runs attention and feed-forward in parallel, as saxml's GPT-J does."""

    def edit(task: Any) -> None:
        stack = task.model.lm_tpl.stacked_transformer_tpl
        stack = getattr(stack, inside) if inside else stack
        plain = stack.transformer_layer_params_tpl
        layer = pax_fiddle.Config(
            saxml_layers.ParallelTransformerOnlyNormAttentionInputs,
            norm_policy=policy,
            ln_tpl=pax_fiddle.Config(
                normalizations.LayerNorm, epsilon=1e-5, direct_scale=True, use_bias=policy == "pre"
            ),
            tr_atten_tpl=plain.tr_atten_tpl.clone(),
        )
        layer.tr_fflayer_tpl.add_skip_connection = skip
        layer.tr_fflayer_tpl.activation_tpl = plain.tr_fflayer_tpl.activation_tpl.clone()
        if policy == "pre":
            layer.tr_atten_tpl.use_rotary_position_emb = True
            layer.tr_atten_tpl.rotary_position_emb_tpl = pax_fiddle.Config(
                saxml_layers.GPTJRotaryEmbedding, max_position_embeddings=TIME, rotary_dim=2
            )
        stack.transformer_layer_params_tpl = layer

    return edit


def _window(template: Any) -> None:
    """A window of three keys, rotary; plain GELU."""
    template.tr_atten_tpl = pax_fiddle.Config(
        attentions.LocalSelfAttention, left_context=3, right_context=0, simulated=True,
        use_bias=False, use_rotary_position_emb=True, atten_logit_cap=1.5,
    )  # fmt: skip
    template.tr_fflayer_tpl.activation_tpl = pax_fiddle.Config(activations.GELU)


def _shared_keys(template: Any) -> None:
    """A single key head, attention to all keys; gated SiLU without biases."""
    template.tr_atten_tpl = pax_fiddle.Config(
        multi_query_attention.MultiQueryDotProductAttention, use_bias=True
    )
    mlp = template.tr_fflayer_tpl
    mlp.activation_tpl = pax_fiddle.Config(activations.SiLU)
    mlp.use_gated_activation, mlp.has_bias, mlp.residual_weight = True, False, 0.7


def _wide(template: Any) -> None:
    """Rotary positions with long timescales, an extra logit, another order of norms."""
    atten = template.tr_atten_tpl
    atten.use_rotary_position_emb, atten.attention_extra_logit = True, 0.5
    atten.rotary_position_emb_tpl.max_timescale = 300
    template.norm_policy = "primer_hybrid"


def _blocks(template: Any) -> None:
    """A window of four keys, computed in blocks of three; no relative bias; fused projections."""
    template.tr_atten_tpl = pax_fiddle.Config(
        attentions.LocalSelfAttention, left_context=4, right_context=0, block_size=3,
        combine_qkv=True, use_bias=True,
    )  # fmt: skip
    template.tr_fflayer_tpl.activation_tpl = pax_fiddle.Config(activations.Tanh)


def _routed(inside: str = "", **values: Any) -> Edit:
    """Make an edit that turns every second layer into a mixture of 5 experts of width 10."""

    def edit(task: Any) -> None:
        stack = task.model.lm_tpl.stacked_transformer_tpl
        stack = getattr(stack, inside) if inside else stack
        stack.num_experts, stack.moe_layers = 5, list(range(1, stack.num_layers, 2))
        stack.num_groups, stack.min_group_size = 1, None
        moe = stack.moe_layer_tpl
        moe.hidden_dims = 10
        for name, value in values.items():
            setattr(moe, name, value)

    return edit


def glam_model(**values: Any) -> Any:
    """GLaM as praxis/layers/glam.py makes it, in the usual sizes."""
    model = pax_fiddle.Config(models.LanguageModel, name="glam")
    settings = {
        "vocab_size": WORDS, "model_dim": 12, "ff_dim": 14, "attention_num_heads": 3,
        "attention_key_value_dim": 6, "num_transformer_layers": 4, "moe": True, "e_dim": 5,
        "capacity_factor": 2.0, "relative_attention_num_buckets": 6,
        "relative_attention_max_distance": 6, **values,
    }  # fmt: skip
    model.lm_tpl = glam.GlamUniTransformerLmHParams(**settings)
    return model


def bert_model() -> Any:
    """`BertModel` with its own label smoothing."""
    model = pax_fiddle.Config(models.BertModel, name="bert", label_smoothing_prob=0.1)
    lm = model.lm_tpl
    lm.model_type, lm.packed_input = LanguageModelType.BIDIRECTIONAL, True
    lm.model_dims, lm.vocab_size = 12, WORDS
    stack = lm.stacked_transformer_tpl
    stack.num_layers, stack.hidden_dims, stack.num_heads, stack.dim_per_head = 2, 14, 3, 4
    return model


def masked(seed: int) -> dict[str, np.ndarray]:
    """A batch of a BERT model whose input pipeline has masked words."""
    made = packed(seed)
    places = (np.random.RandomState(seed + 50).rand(*made["ids"].shape) < 0.4) & (
        made["paddings"] == 0
    )
    labels = made.pop("ids")
    for name in ("weights", "inputs_indicator"):
        made.pop(name)
    return {
        **made,
        "labels": labels,
        "masked_ids": np.where(places, 0, labels).astype(np.int32),
        "masked_pos": places.astype(np.float32),
    }


def unmasked(seed: int) -> dict[str, np.ndarray]:
    """A batch of a BERT model that draws the masks itself."""
    return {name: v for name, v in masked(seed).items() if not name.startswith("masked_")}


A = activations
FOUR = {"NUM_LAYERS": 4}

# fmt: off
LAYER_MODELS = (
    Model("ParallelShared", "GPT-J: attention and feed-forward side by side through one norm with "
          "direct scale, rotary positions on half of each head", before=1, steps=2,
          settings={"COMBINE_QKV": True, "ACTIVATION_CLS": activations.GELU},
          edits=(adam, parallel("pre", False), put(f"{LM}.position_emb_tpl", lambda: None))),
    Model("ParallelNorms", "two norms side by side, without biases, repeated; the feed-forward "
          "adds what it reads", settings={**REPEAT, **ROTARY, "ACTIVATION_CLS": activations.GELU},
          edits=(parallel("primer_hybrid", True, inside="block"),)),
    Model("Templates", "two templates for two layers each: windows of three keys, rotary, with a "
          "cap; one head of keys, gated; every second layer a mixture of experts",
          settings=FOUR,
          edits=(templates(_window, _shared_keys), _routed())),
    Model("TemplatesRepeat", "blocks of two layers with a template each: long rotary, an extra "
          "logit, hybrid norms; a window in blocks, fused", batch=unpacked,
          settings={**UNPACKED, **REPEAT, "NUM_LAYERS": 4, "ACTIVATION_CLS": A.SiLU},
          edits=(layers_per_block(2, 2), templates(_wide, _blocks, inside="block"))),
    Model("ExtraLogit", "attention_extra_logit 0.3 under a cap",
          settings={**ONE, "ATTEN_LOGIT_CAP": 2.0, "ACTIVATION_CLS": A.GELU},
          edits=(put(f"{ATTENTION}.attention_extra_logit", 0.3),)),
    Model("ExtraLogitMqa", "the same of one head of keys", batch=unpacked,
          settings={**ONE, **UNPACKED, "ACTIVATION_CLS": A.ReLU},
          edits=(attention(multi_query_attention.MultiQueryDotProductAttention,
                           attention_extra_logit=-1.0, use_bias=False),)),
    Model("MqaGrouped", "MultiQueryDotProductAttention with two heads of keys", batch=unpacked,
          settings={**ONE, **UNPACKED, "NUM_HEADS": 4, "DIMS_PER_HEAD": 3,
                    "ACTIVATION_CLS": A.GELU},
          edits=(attention(multi_query_attention.MultiQueryDotProductAttention, num_kv_heads=2,
                           use_rotary_position_emb=True, use_bias=True),
                 put(f"{STACK}.dim_per_head", 6))),
    Model("RelativeKeys", "DotProductAttentionXL with biases, a relative bias and a cap; sinusoids "
          "of odd width; Adam", before=1, steps=1, settings={"ACTIVATION_CLS": A.Swish},
          edits=(adam, attention(attentions.DotProductAttentionXL, rel_pos_emb_dim=7,
                                 use_bias=True),
                 put(f"{ATTENTION}.atten_logit_cap", 2.0), relative_bias(),
                 put(f"{LM}.position_emb_tpl", lambda: None))),
    Model("RelativeKeysWindow", "LocalSelfAttentionXL without biases: windows of three keys in "
          "blocks of two, in repeated layers",
          settings={**REPEAT, "ACTIVATION_CLS": A.ELU},
          edits=(put(f"{STACK}.block.transformer_layer_params_tpl.tr_atten_tpl",
                     lambda: pax_fiddle.Config(attentions.LocalSelfAttentionXL, left_context=3,
                                               right_context=0, block_size=2, rel_pos_emb_dim=6,
                                               use_bias=False)),)),
    Model("Glam", "GLaM: kernels [D, N*H] fused, output [N*H, D], the GShard head with smoothing, "
          "cap and clipped logits; experts choose; averages over weights",
          base=functools.partial(glam_model, combine_qkv=True, moe_gating_func="expert_choice",
                                 use_tgt_labels_size_as_loss_denominator=False),
          edits=(put(f"{LM}.softmax_tpl.label_smoothing_prob", 0.2),
                 put(f"{LM}.softmax_tpl.soft_cap_logits", 3.0),
                 put(f"{LM}.softmax_tpl.logits_abs_max", 1.5))),
    Model("GlamUnfused", "GLaM: three kernels, top-2 with a capacity, averages over positions",
          base=functools.partial(glam_model, c_dim=3)),
    Model("GlamDense", "GLaM without experts, heads as wide as the model, square kernels",
          base=functools.partial(glam_model, moe=False, e_dim=None,
                                                 attention_key_value_dim=4,
                                                 num_transformer_layers=2)),
    Model("MergedHeads", "attention_combine_dims with the output [D, N*H] and relative keys",
          settings={**ONE, "ACTIVATION_CLS": A.ReLU},
          edits=(attention(attentions.DotProductAttentionXL, rel_pos_emb_dim=6, use_bias=False),
                 put(f"{ATTENTION}.proj_tpl.attention_combine_dims", True),
                 put(f"{STACK}.dim_per_head", 5))),
    Model("BertMasked", "BertModel: masked words given, label smoothing of the model's own; Adam",
          base=bert_model, batch=masked, before=1, steps=2),
    Model("BertDrawn", "BertModel that draws the masks itself", base=bert_model, batch=unmasked),
)
# fmt: on
