"""The table of what is recorded: variants of models and optimizers that real jobs have."""

from __future__ import annotations

import jax.numpy as jnp
from paxml.tasks.lm import model_params
from praxis import optimizers, pax_fiddle

from parity_tests.record.models import others
from parity_tests.record.models.edits import (
    adafactor,
    experts,
    grouped_heads,
    layers_per_block,
    optax_optimizer,
    optimizer,
    rms_norms,
    two_optimizers,
)
from parity_tests.record.models.experiments import GPT, LLAMA, Variant, adam, put

STACK = "model.lm_tpl.stacked_transformer_tpl"
LAYER = f"{STACK}.transformer_layer_params_tpl"
REPEATED_LAYER = f"{STACK}.block.transformer_layer_params_tpl"
REPEAT = {"USE_REPEATED_LAYER": True, "NUM_LAYERS": 3}
UNEVEN = {
    "VOCAB_SIZE": 42, "HIDDEN_DIMS": 25, "MODEL_DIMS": 15, "NUM_HEADS": 3, "DIMS_PER_HEAD": 5,
    "ICI_MESH_SHAPE": [1, 2, 2], "USE_ROTARY_POSITION_EMB": False,
}  # fmt: skip
ONE = GPT | {"NUM_LAYERS": 1}
PMAP = {"ICI_MESH_SHAPE": None}  # PAXml's pmap mode: FLAX checkpoints
PIPELINE = model_params.TransformerLmSpmdPipelineAdafactor
STAGES = {
    "NUM_STAGES": 2, "NUM_MICROBATCHES": 2, "ICI_MESH_SHAPE": [2, 1, 1, 1],
    "DCN_MESH_SHAPE": [1, 1, 1, 1],
}  # fmt: skip

# fmt: off
VARIANTS = (
    # layers: names of the groups, blocks, pipelines
    Variant(
        "GptRepeatUnderscore", "repeat_prefix_sep '_', as in paxml.tasks.lm.params.lm_cloud",
        ("gda", "ocdbt", "flax"), settings=GPT | REPEAT,
        edits=(adam, put("train.learner.repeat_prefix_sep", "_")),
    ),
    Variant(
        "MoeRepeatBlocks", "blocks of 2 layers, the second with experts, 2 times",
        ("gda", "flax"), settings=GPT | REPEAT | {"NUM_LAYERS": 4},
        edits=(adam, layers_per_block(2, 2), experts(2, inside="block")),
    ),
    Variant(
        "MoeGatedAdafactor", "gated experts every 2nd layer, ShardedAdafactor on rank 3",
        settings=GPT, edits=(experts(2, gated=True),),
    ),
    Variant(
        "GptPostNorm", "norm_policy 'post', biases everywhere", ("ocdbt",),
        settings=GPT | {"NORM_POLICY": "post"},
        edits=(adam, put(f"{LAYER}.tr_atten_tpl.use_bias", True)),
    ),
    Variant(
        "GptPostSkipRelative", "norm_policy 'post_skip', relative bias",
        settings=GPT | {"NORM_POLICY": "post_skip", "RELATIVE_BIAS": True}, edits=(adam,),
    ),
    Variant(
        "GptHybrid", "norm_policy 'primer_hybrid'", ("gda",),
        settings=GPT | {"NORM_POLICY": "primer_hybrid"}, edits=(adam,),
    ),
    Variant(
        "RelativeRepeat", "relative bias in repeated layers", ("flax",),
        settings=GPT | REPEAT | {"RELATIVE_BIAS": True}, edits=(adam,),
    ),
    Variant(
        "PipeStageOfThree", "2 stages of 3 layers", base=PIPELINE, devices=2,
        settings=GPT | STAGES | {"NUM_LAYERS": 6}, edits=(adam,),
    ),
    Variant(
        "PipeRepeat", "2 stages that repeat 3 layers", ("gda", "ocdbt"), base=PIPELINE, devices=2,
        settings=GPT | STAGES | REPEAT | {"NUM_LAYERS": 6},
        # With summaries, PAXml 1.4.0 fails to unpack those of a repeat inside a pipeline.
        edits=(adam, put("summary_verbosity", 0)),
    ),
    Variant(
        "PipeCircular", "2 stages, each twice, of 1 layer", base=PIPELINE, devices=2,
        settings=GPT | STAGES | {"NUM_LAYERS": 4, "CIRCULAR_REPEAT": 2}, edits=(adam,),
    ),
    # padding
    Variant("PaddedAdam", "mesh 1x2x2 on sizes that it does not divide", devices=4,
            settings=LLAMA | UNEVEN, edits=(adam,)),
    Variant("PaddedAdafactor", "the same with ShardedAdafactor", ("gda", "ocdbt"), devices=4,
            settings=LLAMA | UNEVEN),
    Variant(
        "PaddedAdafactorRepeat", "the same, repeated, factored along the largest axes, EMA",
        devices=4, settings=LLAMA | UNEVEN | REPEAT,
        edits=(
            adafactor(
                sort_factored_second_moment_dims=True, min_dim_size_to_factor=16, ema_decay=0.99
            ),
        ),
    ),
    Variant(
        "PaddedSquare", "axes that differ only without padding: 15 and 16", devices=4,
        settings=LLAMA | UNEVEN | {"HIDDEN_DIMS": 16},
    ),
    # ShardedAdafactor
    Variant(
        "AdafactorPow", "decay_method 'pow', float32 momentum, EMA, repeated", ("flax", "ocdbt"),
        settings=LLAMA | REPEAT,
        edits=(
            adafactor(
                decay_method="pow", decay_pow=0.8, quantized_dtype="float32", ema_decay=0.99
            ),
        ),
    ),
    Variant(
        "AdafactorNoMomentum", "beta1 0: no momentum", ("gda",), settings=LLAMA | {"NUM_LAYERS": 1},
        edits=(adafactor(beta1=0.0),),
    ),
    Variant(
        "AdafactorUnfactored", "factored False, bfloat16 momentum", ("gda", "flax"),
        settings=LLAMA | {"NUM_LAYERS": 1},
        edits=(adafactor(factored=False, quantized_dtype="bfloat16"),),
    ),
    Variant(
        "AdafactorFrozenRepeat", "repeated layers, frozen attention and embeddings, EMA",
        ("gda", "ocdbt", "flax"), settings=GPT | REPEAT,
        edits=(
            adafactor(ema_decay=0.99),
            put("train.learner.bprop_variable_exclusion", lambda: [".*self_attention.*", ".*b$"]),
        ),
    ),
    Variant(
        "AdamFrozenKept", "frozen variables that keep their state", ("gda",), settings=GPT,
        edits=(
            adam,
            put("train.learner.bprop_variable_exclusion", lambda: [".*softmax.*"]),
            put("train.learner.keep_optimizer_state_for_excluded_vars", True),
        ),
    ),
    # other optimizers and learners
    Variant(
        "TwoOptimizers", "MultiOptimizerLearner: Adafactor and Adam", ("gda", "flax"),
        settings=ONE, edits=(two_optimizers,),
    ),
    Variant(
        "TwoOptimizersRepeat", "MultiOptimizerLearner with repeated layers", ("ocdbt",),
        settings=GPT | REPEAT, edits=(two_optimizers,),
    ),
    Variant("OptaxAdam", "Adam(sharded_adam=False): optax.adam; pmap", ("flax", "gda"),
            settings=GPT | PMAP | REPEAT,
            edits=(optimizer(optimizers.Adam, beta1=0.9, beta2=0.99, sharded_adam=False),)),
    # (with repeated layers PAXml 1.4.0 cannot restore what it wrote)
    Variant("OptaxOptimizer", "OptaxOptimizer(optax.adamw), EMA", ("gda", "ocdbt"),
            settings=ONE, edits=(optax_optimizer,)),
    Variant("Sgd", "Sgd without momentum; pmap", ("flax",), settings=ONE | PMAP,
            edits=(optimizer(optimizers.Sgd),)),
    Variant("SgdMomentum", "Sgd with momentum; pmap", ("flax", "gda"), settings=ONE | PMAP,
            edits=(optimizer(optimizers.Sgd, momentum=0.9),)),
    Variant("ShardedSgdRepeat", "ShardedSgd with momentum", ("gda", "flax"),
            settings=GPT | REPEAT, edits=(optimizer(optimizers.ShardedSgd, momentum=0.9),)),
    Variant("Lion", "Lion, bfloat16 momentum", ("gda",), settings=ONE,
            edits=(optimizer(optimizers.Lion),)),
    Variant("Lamb", "optax.lamb; pmap", ("flax", "gda"), settings=ONE | PMAP,
            edits=(optimizer(optimizers.Lamb),)),
    Variant("Adagrad", "ShardedAdagrad", ("gda", "flax"), settings=ONE,
            edits=(optimizer(optimizers.ShardedAdagrad),)),
    Variant("OptaxAdafactor", "optax.adafactor; pmap", ("flax", "gda"), settings=ONE | PMAP,
            edits=(optimizer(optimizers.Adafactor, momentum=0.9, min_dim_size_to_factor=8),)),
    Variant(
        "Accumulated", "ShardedStaticAccumulator of Adam", ("gda",), settings=ONE,
        edits=(
            optimizer(
                optimizers.ShardedStaticAccumulator, num_sub_batches=2,
                optimizer_tpl=pax_fiddle.Config(
                    optimizers.Adam, beta1=0.9, beta2=0.99, learning_rate=1e-2
                ),
            ),
        ),
    ),
    # attention and positions in repeated layers
    Variant(
        "GqaRepeat", "grouped-query attention, repeated, RmsNorm", ("gda",),
        settings=LLAMA | REPEAT | {"NUM_HEADS": 4, "DIMS_PER_HEAD": 4},
        edits=(adam, grouped_heads("block", 2), rms_norms("block")),
    ),
    Variant(
        "MqaRepeat", "one head of keys and values, repeated", ("ocdbt",),
        settings=LLAMA | REPEAT, edits=(adam, grouped_heads("block", 1)),
    ),
    Variant(
        "FusedBiasRotaryRepeat", "fused qkv with biases, rotary, learned positions, repeated",
        ("flax",),
        settings=LLAMA | REPEAT | {
            "COMBINE_QKV": True, "TRAINABLE_POSITION_EMB": True, "SEPARATE_EMBEDDING": False,
        },
        edits=(adam, put(f"{REPEATED_LAYER}.tr_atten_tpl.use_bias", True)),
    ),
    Variant(
        "Bf16Repeat", "a bfloat16 model, repeated, saved again", ("gda", "flax"),
        settings=LLAMA | REPEAT | {"FPROP_DTYPE": jnp.bfloat16},
        edits=(adam, put("model.dtype", jnp.bfloat16), put("model.lm_tpl.dtype", jnp.bfloat16)),
    ),
    Variant(
        "NdRepeat", "repeated over two axes (nd_prefix_shape)", ("gda",),
        settings=GPT | REPEAT | {"NUM_LAYERS": 6},
        edits=(adam, put(f"{STACK}.nd_prefix_shape", lambda: (3, 2))),
    ),
    # quantized weights, odd dtypes: `states`
    Variant("QuantInt8", "int8 weights of every layer, gated, fused qkv", ("gda",),
            settings=LLAMA | {"COMBINE_QKV": True, "SEPARATE_EMBEDDING": False}, quantize={}),
    Variant("QuantInt8Repeat", "int8 weights, repeated layers", ("gda", "flax"),
            settings=GPT | REPEAT, quantize={}),
    Variant("QuantAsymmetric", "int8 weights with zero points", ("ocdbt",), settings=GPT,
            quantize={"use_symmetric": False}),
    Variant("QuantInt4Packed", "int4 weights, eight in an int32", ("gda",), settings=GPT,
            quantize={"num_bits": 4}),
    Variant("QuantBlocks", "int8 weights with scales for blocks of 8", ("gda",), settings=GPT,
            quantize={"block_size": 8}),
    Variant("AllDtypes", "a leaf of each dtype", ("gda", "ocdbt", "flax"), base=None),
    # other models
    *others.VARIANTS,
)
# fmt: on
