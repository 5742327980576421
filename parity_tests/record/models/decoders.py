"""The table of models whose values are recorded; each covers what the others do not.

Sizes are small, because every clone contains the recordings, and different from each other where
the model allows: B 2 rows, N 3 heads, H 4 head width, X 5 experts, T 8 positions, D 12 width, F 14
hidden width (10 for an expert), V 17 words. Together, the models use all of Praxis' activations.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from paxml import trainer_lib
from praxis import pax_fiddle
from praxis.layers import activations, attentions, multi_query_attention, normalizations
from praxis.layers.transformer_models import LanguageModelType

from parity_tests.record.models.edits import grouped_heads, layers_per_block, rms_norms
from parity_tests.record.models.experiments import Edit, Variant, adam, put

BATCH, TIME, WORDS = 2, 8, 17
SPREAD = 0.3  # of the noise on all parameters, because biases and scales start as zeros and ones
SIZES = {
    "NUM_LAYERS": 2, "VOCAB_SIZE": WORDS, "DIMS_PER_HEAD": 4, "NUM_HEADS": 3, "MODEL_DIMS": 12,
    "HIDDEN_DIMS": 14, "TRAINABLE_PE_MAX_SEQ_LEN": 11, "ATTEN_LOGIT_CAP": 0.0,
    "SOFTMAX_CAP_LOGITS": 0.0,
}  # fmt: skip


def packed(seed: int) -> dict[str, np.ndarray]:
    """Two segments per row, the second row padded; `inputs_indicator` marks prefixes."""
    made = _words(seed)
    made["segment_ids"] = np.array([[1] * 5 + [2] * 3, [1] * 4 + [2] * 2 + [0] * 2], np.int32)
    made["segment_pos"] = np.array([[*range(5), *range(3)], [*range(4), 0, 1, 0, 0]], np.int32)
    made["inputs_indicator"] = np.array([[1, 1, 1, 0, 0, 1, 1, 0]] * 2, np.int32)
    return _padded(made, made["segment_ids"] == 0)


def unpacked(seed: int, left: bool = False) -> dict[str, np.ndarray]:
    """One sequence per row, the second row padded by 3."""
    made = _words(seed)
    made["inputs_indicator"] = np.array([[0] * 3 + [1] * 3 + [0] * 2, [1] * 4 + [0] * 4], np.int32)
    place = np.arange(TIME)
    rows = [place < 0, (place < 3) if left else (place >= TIME - 3)]
    return _padded(made, np.stack(rows))


def _words(seed: int) -> dict[str, np.ndarray]:
    random = np.random.RandomState(seed)
    words = random.randint(1, WORDS, (BATCH, TIME + 1)).astype(np.int32)
    weights = random.choice([0.25, 1.0, 2.0], (BATCH, TIME)).astype(np.float32)
    return {"ids": words[:, :-1], "labels": words[:, 1:], "weights": weights}


def _padded(made: dict[str, np.ndarray], where: np.ndarray) -> dict[str, np.ndarray]:
    made["paddings"] = where.astype(np.float32)
    for name in ("ids", "labels", "weights", "inputs_indicator"):
        made[name] = np.where(where, 0, made[name]).astype(made[name].dtype)
    return made


@dataclasses.dataclass(frozen=True)
class Model(Variant):
    """One row of the table.

    Attributes:
        batch: makes the batch for a seed.
        before: optimizer steps before the checkpoint; only used with `steps`.
        steps: recorded optimizer steps after the checkpoint; 0: the checkpoint has weights only.
        evaluate: record the values of an evaluation.
    """

    formats: tuple[str, ...] = ("flax",)
    batch: Callable[[int], dict[str, np.ndarray]] = packed
    before: int = 0
    steps: int = 0
    evaluate: bool = False

    def __post_init__(self) -> None:
        """Fill in the sizes."""
        object.__setattr__(self, "settings", {**SIZES, **self.settings})


def initial_state(task: Any, inputs: Any, with_optimizer: bool) -> Any:
    """PAXml's initial TrainState with noise on all parameters."""
    state, _ = trainer_lib.initialize_model_state(
        task, jax.random.PRNGKey(0), inputs, do_init_checkpoint_rules=False
    )
    random = np.random.RandomState(1)
    shaken = jax.tree_util.tree_map(
        lambda value: value + SPREAD * random.randn(*value.shape).astype(value.dtype),
        state.mdl_vars["params"],
    )
    opt_states = state.opt_states if with_optimizer else []
    return state.replace(mdl_vars={**state.mdl_vars, "params": shaken}, opt_states=opt_states)


LM = "model.lm_tpl"
STACK = f"{LM}.stacked_transformer_tpl"
LAYER = f"{STACK}.transformer_layer_params_tpl"
ATTENTION = f"{LAYER}.tr_atten_tpl"
BLOCK_ATTENTION = f"{STACK}.block.transformer_layer_params_tpl.tr_atten_tpl"
SOFTMAX = f"{LM}.softmax_tpl"


def attention(cls: Any, **values: Any) -> Edit:
    """Make an edit that uses another class of attention, with the settings of the old one."""

    def edit(task: Any) -> None:
        layer = task.model.lm_tpl.stacked_transformer_tpl.transformer_layer_params_tpl
        cap = layer.tr_atten_tpl.atten_logit_cap
        layer.tr_atten_tpl = pax_fiddle.Config(cls, atten_logit_cap=cap, **values)

    return edit


def relative_bias(place: str = ATTENTION, **values: Any) -> Edit:
    """Make an edit that adds a relative bias with few buckets, all of which are used."""
    values = {"relative_attention_num_buckets": 6, "relative_attention_max_distance": 6, **values}
    return put(
        f"{place}.relative_bias_tpl",
        lambda: pax_fiddle.Config(attentions.RelativeBias, **values),
    )


def routed(
    gating: str = "top2",
    inside: str = "",
    layers: tuple[int, ...] = (0,),
    groups: int = 1,
    least: int | None = None,
    **values: Any,
) -> Edit:
    """Make an edit that turns layers into mixtures of 5 experts of width 10."""

    def edit(task: Any) -> None:
        stack = task.model.lm_tpl.stacked_transformer_tpl
        stack = getattr(stack, inside) if inside else stack
        stack.num_experts, stack.moe_layers, stack.gating_func = 5, list(layers), gating
        stack.num_groups, stack.min_group_size = groups, least
        layer, moe = stack.transformer_layer_params_tpl, stack.moe_layer_tpl
        plain = layer.tr_fflayer_tpl
        moe.hidden_dims, moe.norm_policy = 10, layer.norm_policy
        moe.activation_tpl, moe.ln_tpl = plain.activation_tpl.clone(), plain.ln_tpl.clone()
        for name, value in values.items():
            setattr(moe, name, value)

    return edit


def _norm(**values: Any) -> Any:
    return lambda: pax_fiddle.Config(normalizations.LayerNorm, **values)


def _rms_norm() -> Any:
    return pax_fiddle.Config(normalizations.RmsNorm, direct_scale=False)


UNPACKED = {"PACKED_INPUT": False}
ROTARY = {"USE_ROTARY_POSITION_EMB": True}
ONE = {"NUM_LAYERS": 1}
REPEAT = {"USE_REPEATED_LAYER": True, "NUM_LAYERS": 3}
A = activations

# fmt: off
MODELS = (
    # norms and residuals
    Model("PostNorm", "norm_policy 'post'; Adam",
          settings={"NORM_POLICY": "post", "ACTIVATION_CLS": A.ReLU6}, before=1, steps=2,
          edits=(adam,)),
    Model("PostSkipRelative", "norm_policy 'post_skip'; relative bias, packed, in training: "
          "distances count places of the row", batch=packed,
          settings={"NORM_POLICY": "post_skip", "ACTIVATION_CLS": A.SquaredReLU},
          edits=(relative_bias(),)),
    Model("PrimerHybrid", "norm_policy 'primer_hybrid', gated",
          settings={"NORM_POLICY": "primer_hybrid", "ACTIVATION_CLS": A.Tanh,
                    "USE_GATED_ACTIVATION": True}),
    Model("ResidualWeight", "residual weight of the MLP, no bias there and in the norms, their "
          "epsilon",
          settings={"ACTIVATION_CLS": A.SineReLU},
          edits=(put(f"{LAYER}.tr_fflayer_tpl.residual_weight", 0.6),
                 put(f"{LAYER}.tr_fflayer_tpl.has_bias", False),
                 put(f"{LAYER}.tr_fflayer_tpl.ln_tpl", _norm(use_bias=False, epsilon=1e-3)),
                 put(f"{LAYER}.ln_tpl", _norm(use_bias=False, epsilon=1e-3)),
                 put(f"{LM}.final_ln_tpl", _norm(use_bias=False, epsilon=1e-3)))),
    # attention
    Model("RelativeRepeatEval", "relative bias in repeated layers, packed, in evaluation: "
          "distances count places of the segment", evaluate=True,
          settings={**REPEAT, "ACTIVATION_CLS": A.ELU}, edits=(relative_bias(BLOCK_ATTENTION),)),
    Model("Bidirectional", "model_type bidirectional, relative bias in both directions, sinusoids "
          "with other time scales, padding on the left",
          batch=functools.partial(unpacked, left=True),
          settings={**UNPACKED, "ACTIVATION_CLS": A.LeakyReLU},
          edits=(put("model.model_type", LanguageModelType.BIDIRECTIONAL),
                 relative_bias(bidirectional=True),
                 put(f"{LM}.position_emb_tpl.min_timescale", 2),
                 put(f"{LM}.position_emb_tpl.max_timescale", 300))),
    Model("PrefixPacked", "model_type prefix, packed", settings={"ACTIVATION_CLS": A.Sigmoid},
          edits=(put("model.model_type", LanguageModelType.PREFIX),)),
    Model("PrefixUnpacked", "model_type prefix, one sequence a row, indicators in its middle",
          batch=unpacked, settings={**ONE, **UNPACKED, "ACTIVATION_CLS": A.Softplus},
          edits=(put("model.model_type", LanguageModelType.PREFIX),)),
    Model("PlainScale", "queries scaled by (D/N)^-0.5 though heads are wider; biases",
          batch=unpacked, settings={**ONE, **UNPACKED, "ACTIVATION_CLS": A.CubedReLU},
          edits=(put(f"{STACK}.dim_per_head", 6),
                 put(f"{ATTENTION}.internal_enable_per_dim_scale", False),
                 put(f"{ATTENTION}.use_bias", True))),
    Model("Caps", "caps of attention and head that matter, odd width (sinusoids)",
          settings={**ONE, "MODEL_DIMS": 15, "DIMS_PER_HEAD": 5, "ATTEN_LOGIT_CAP": 1.5,
                    "SOFTMAX_CAP_LOGITS": 2.5, "ACTIVATION_CLS": A.Exp}),
    Model("LocalWindow", "LocalSelfAttention: three keys, the query's own among them", batch=packed,
          settings={"ACTIVATION_CLS": A.Swish},
          edits=(attention(attentions.LocalSelfAttention, left_context=3, right_context=0,
                           simulated=True, use_bias=False),)),
    Model("Gqa", "grouped-query attention with temperature, cap and biases; rotary, RmsNorm with "
          "direct scale, separate embedding without scale; Adafactor", before=1, steps=2,
          settings={"NUM_HEADS": 4, "DIMS_PER_HEAD": 3, "SEPARATE_EMBEDDING": True,
                    "USE_GATED_ACTIVATION": True, "ACTIVATION_CLS": A.SiLU},
          edits=(grouped_heads("stack", 2), rms_norms("stack"), put(f"{STACK}.dim_per_head", 6),
                 put(f"{ATTENTION}.atten_temp", 1.3), put(f"{ATTENTION}.atten_logit_cap", 2.0),
                 put(f"{ATTENTION}.rope_min_max_timescales", lambda: (1, 500)),
                 put(f"{LM}.position_emb_tpl", lambda: None),
                 put(f"{LM}.separate_embedding_tpl.scale_sqrt_depth", False))),
    Model("Gemma", "what Gemma computes: RmsNorm with the scale stored minus one, tied embeddings "
          "times sqrt(D), gated tanh GELU, grouped heads, no bias", batch=unpacked,
          settings={**UNPACKED, "NUM_HEADS": 4, "DIMS_PER_HEAD": 3, "USE_GATED_ACTIVATION": True,
                    "ACTIVATION_CLS": A.GELU},
          edits=(grouped_heads("stack", 2), put(f"{STACK}.dim_per_head", 6),
                 put(f"{ATTENTION}.use_bias", False),
                 put(f"{LAYER}.tr_fflayer_tpl.has_bias", False),
                 put(f"{LAYER}.tr_fflayer_tpl.ln_tpl", _rms_norm),
                 put(f"{LAYER}.ln_tpl", _rms_norm), put(f"{LM}.final_ln_tpl", _rms_norm),
                 put(f"{SOFTMAX}.feed_forward_tpl.has_bias", False),
                 put(f"{LM}.position_emb_tpl", lambda: None))),
    Model("Mqa", "MultiQueryDotProductAttention, rotary, biases", batch=unpacked,
          settings={**ONE, **UNPACKED, "ACTIVATION_CLS": A.GELU},
          edits=(attention(multi_query_attention.MultiQueryDotProductAttention,
                           use_rotary_position_emb=True, use_bias=True),
                 put(f"{LM}.position_emb_tpl", lambda: None))),
    Model("FusedRotaryRepeat", "fused qkv with biases, rotary with another time scale, learned "
          "positions, blocks of two repeated layers, exact GELU",
          settings={**REPEAT, **ROTARY, "COMBINE_QKV": True, "TRAINABLE_POSITION_EMB": True,
                    "NUM_LAYERS": 4, "ACTIVATION_CLS": A.GELU},
          edits=(layers_per_block(2, 2), put(f"{BLOCK_ATTENTION}.use_bias", True),
                 put(f"{BLOCK_ATTENTION}.rotary_position_emb_tpl.max_timescale", 200),
                 put(f"{STACK}.block.transformer_layer_params_tpl.tr_fflayer_tpl"
                     ".activation_tpl.approximate", False))),
    Model("QkNorm", "norms of queries and keys",
          settings={**ONE, **ROTARY, "ACTIVATION_CLS": A.ReLU},
          edits=(put(f"{ATTENTION}.ln_tpl", _norm()),)),
    # embeddings and loss
    Model("SmoothedLoss", "label smoothing, z-loss, hidden states scaled before the head, separate "
          "embedding with scale",
          settings={**ONE, "SEPARATE_EMBEDDING": True, "ACTIVATION_CLS": A.Identity},
          edits=(put(f"{SOFTMAX}.label_smoothing_prob", 0.15),
                 put(f"{SOFTMAX}.z_loss_weight", 0.02),
                 put(f"{SOFTMAX}.scale_before_logits", True))),
    Model("SmoothedLossEval", "label smoothing that is off in evaluation; no final norm",
          evaluate=True, settings={**ONE, "ACTIVATION_CLS": A.ReLU},
          edits=(put(f"{SOFTMAX}.label_smoothing_prob", 0.15),
                 put(f"{SOFTMAX}.label_smoothing_apply_for_eval", False),
                 put(f"{SOFTMAX}.feed_forward_tpl.has_bias", False),
                 put(f"{LM}.final_ln_tpl", lambda: None))),
    Model("OffBelowZero", "numbers that are used above zero alone: caps, smoothing, z-loss, clip, "
          "weight decay; the head's cap is one whatever its sign", before=1, steps=1,
          settings={**ONE, "ACTIVATION_CLS": A.GELU, "ATTEN_LOGIT_CAP": -1.0,
                    "SOFTMAX_CAP_LOGITS": -3.0},
          edits=(adam, put(f"{SOFTMAX}.z_loss_weight", -1.0),
                 put(f"{SOFTMAX}.label_smoothing_prob", -0.5),
                 put("train.learner.optimizer.clip_threshold", 0.0),
                 put("train.learner.optimizer.weight_decay", -1.0))),
    # mixtures of experts
    Model("MoeTop2", "top-2, gated, two groups with too little room, capped router, weighted loss",
          settings={"ACTIVATION_CLS": A.GELU}, before=1, steps=2,
          edits=(adam, routed(groups=2, layers=(1,), use_gated_activation=True,
                              gating_logit_cap=1.2, unadjusted_expert_capacity_factor=1.0,
                              expert_capacity_dim=3, moe_load_balance_loss_weight=0.3))),
    Model("MoeRandom", "second expert 'random' (threshold 0: always), room given as a number, "
          "groups of at least 5", batch=unpacked,
          settings={**ONE, **UNPACKED, "ACTIVATION_CLS": A.ReLU},
          edits=(routed(groups=10, least=5, second_expert_policy="random",
                        unadjusted_expert_capacity_factor=0.0, expert_capacity_dim=2),)),
    Model("MoeSampling", "second expert drawn at random, by `routing/prng_key`",
          settings={**ONE, "ACTIVATION_CLS": A.ReLU},
          edits=(routed(second_expert_policy="sampling"),)),
    Model("MoeExpertChoice", "experts choose tokens, padding too",
          settings={**ONE, "ACTIVATION_CLS": A.SiLU},
          edits=(routed("expert_choice", groups=2, use_gated_activation=True),)),
    Model("MoeExpertChoiceV2", "experts choose tokens, no padding; the router's cap is ignored",
          settings={**ONE, "ACTIVATION_CLS": A.Tanh},
          edits=(routed("expert_choice_v2", unadjusted_expert_capacity_factor=1.5,
                        gating_logit_cap=0.5),)),
    Model("MoeDenseTop2", "the two best experts, no limit of room",
          settings={**ONE, "ACTIVATION_CLS": A.ELU},
          edits=(routed("dense_top2"),)),
    Model("MoeSentence", "routed by the mean of the row, hybrid norms",
          settings={**ONE, "NORM_POLICY": "primer_hybrid", "ACTIVATION_CLS": A.GELU},
          edits=(routed(moe_gating_embedding_level="sentence"),)),
    Model("MoeRepeat", "blocks of two repeated layers, the first with experts",
          settings={**REPEAT, "NUM_LAYERS": 4, "ACTIVATION_CLS": A.GELU},
          edits=(layers_per_block(2, 2), routed(inside="block", layers=(0,)))),
    # half precision
    Model("Bf16", "computed in bfloat16, beside the values in float32",
          settings={**ROTARY, "FPROP_DTYPE": jnp.bfloat16, "ATTEN_LOGIT_CAP": 3.0,
                    "SOFTMAX_CAP_LOGITS": 5.0, "ACTIVATION_CLS": A.SiLU,
                    "USE_GATED_ACTIVATION": True}),
    Model("Bf16Moe", "experts in bfloat16", settings={**ONE, "FPROP_DTYPE": jnp.bfloat16,
          "ACTIVATION_CLS": A.GELU}, edits=(routed(),)),
)
# fmt: on
