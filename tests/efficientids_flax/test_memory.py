"""Memory estimates against real trees, real optimizer states and XLA's own figures."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import (
    AdapterConfig,
    BackboneConfig,
    EfficientIDSConfig,
    MoEConfig,
    OptimizerConfig,
    RotaryConfig,
    ScheduleConfig,
)
from efficientids_flax.core.clustering.tables import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.memory import estimate_memory

MODEL = BackboneConfig(
    vocab_size=512,
    num_layers=2,
    model_dims=64,
    hidden_dims=256,
    num_heads=4,
    num_kv_heads=4,
    head_dim=16,
)


def variant(**changes: Any) -> BackboneConfig:
    return dataclasses.replace(MODEL, **changes)


def recommender(**changes: Any) -> EfficientIDSConfig:
    values: dict[str, Any] = {
        "num_items": 5000, "item_embedding_dim": 32, "num_clusters": 71, "backbone": MODEL,
        "trainable_cluster_embeddings": True,
    }  # fmt: skip
    return EfficientIDSConfig(**values | changes)


FULL = {"full_softmax": True, "trainable_cluster_embeddings": False, "num_clusters": None}
EXPERTS = MoEConfig(num_experts=4, layers=(0, 1), hidden_dims=256)


def built(config: BackboneConfig | EfficientIDSConfig, remat: str | None = None) -> Any:
    """(module, method that scores a batch)."""
    if isinstance(config, BackboneConfig):
        return Decoder(config, remat=remat), lambda module, ids: module.logits(module(ids))
    clustering = None
    if not config.full_softmax:
        assert config.num_clusters is not None
        places = np.arange(config.num_items) % config.num_clusters
        clustering = ClusteringInfo.from_assignments(places)
    module = EfficientIDSModel(config, clustering)
    return module, lambda module, ids: module.head_inputs(fields(ids))


def fields(ids: Any) -> dict[str, Any]:
    """Any batch of the shape of `ids`."""
    names = ("ids", "input_item_weights", "paddings", "labels", "weights", "label_item_weights")
    return dict.fromkeys(names, ids)


def abstract(config: BackboneConfig | EfficientIDSConfig, ids: Any) -> Any:
    """Shapes of the parameters, by tracing the model's own initialisation."""
    module, run = built(config)
    return jax.eval_shape(lambda ids: module.init(jax.random.key(0), ids, method=run), ids)[
        "params"
    ]


def nbytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


MODELS = [
    MODEL,
    variant(scan_layers=True, gated_mlp=True, num_kv_heads=2, param_dtype="bfloat16"),
    variant(norm="layer_norm", norm_bias=True, mlp_bias=True, tied_embeddings=False),
    variant(moe=EXPERTS),
    recommender(),
    recommender(**FULL),
    recommender(input_adapter_everywhere=False, output_adapter=AdapterConfig()),
]


@pytest.mark.parametrize("config", MODELS, ids=range(len(MODELS)))
def test_parameters_are_exact(config: BackboneConfig | EfficientIDSConfig):
    ids = jax.ShapeDtypeStruct((2, 8), jnp.int32)
    wanted = nbytes(abstract(config, ids))
    assert estimate_memory(config, 2, 8).parameters == wanted
    training = estimate_memory(config, 2, 8, mode="training")
    assert (training.parameters, training.gradients) == (wanted, wanted)


def test_dtypes_in_place_of_the_configurations():
    whole = estimate_memory(MODEL, 2, 8, mode="generation")
    half = estimate_memory(MODEL, 2, 8, mode="generation", dtype="bfloat16", param_dtype="float16")
    assert half.parameters * 2 == whole.parameters
    assert half.cache * 2 == whole.cache


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adamw(1e-3),
        optax.adafactor(1e-3),
        optax.sgd(1e-2, momentum=0.9),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3, mu_dtype=jnp.bfloat16)),
    ],
    ids=["adamw", "adafactor", "momentum", "adam_half"],
)
def test_optimizer_state_is_exact(optimizer: optax.GradientTransformation):
    params = abstract(MODEL, jax.ShapeDtypeStruct((2, 8), jnp.int32))
    found = estimate_memory(MODEL, 2, 8, mode="training", optimizer=optimizer)
    assert found.optimizer_state == nbytes(jax.eval_shape(optimizer.init, params))
    assert estimate_memory(MODEL, 2, 8, optimizer=optimizer).optimizer_state == 0


def test_paxml_optimizers_by_their_configuration():
    adam = OptimizerConfig(
        "adam", learning_rate=1e-3, schedule=ScheduleConfig(), beta1=0.9, beta2=0.99, epsilon=1e-8
    )
    found = estimate_memory(MODEL, 2, 8, mode="training", optimizer=adam)
    counts = found.optimizer_state - 2 * found.parameters  # two moments a parameter, and counts
    assert 0 < counts <= 16
    adafactor = OptimizerConfig(
        "sharded_adafactor", learning_rate=1e-3, schedule=ScheduleConfig(), beta1=0.9,
        decay_method="adam", decay_adam=0.999,
    )  # fmt: skip
    found = estimate_memory(MODEL, 2, 8, mode="training", optimizer=adafactor)
    # One byte a parameter of momentum; scales and factors are small beside matrices.
    assert 0.25 * found.parameters < found.optimizer_state < 0.4 * found.parameters


def measured(
    config: BackboneConfig | EfficientIDSConfig, rows: int, length: int, mode: str, remat: Any
) -> int:
    """Temporary bytes of a compiled step, as XLA reports them; logits that are returned too."""
    module, run = built(config, remat)
    ids = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    params = abstract(config, ids)

    def loss(params: Any, ids: jax.Array) -> jax.Array:
        if isinstance(config, EfficientIDSConfig):
            return module.apply({"params": params}, fields(ids), method="loss").total_loss
        logits = jax.nn.log_softmax(module.apply({"params": params}, ids, method=run))
        return -jnp.mean(jnp.take_along_axis(logits, ids[..., None], axis=-1))

    def forward(params: Any, ids: jax.Array) -> jax.Array:
        return module.apply({"params": params}, ids, method=run)

    step: Any = jax.value_and_grad(loss) if mode == "training" else forward
    found: Any = jax.jit(step).lower(params, ids).compile().memory_analysis()
    returned = found.output_size_in_bytes if mode == "inference" else 0
    return found.temp_size_in_bytes + returned


CASES = {
    "plain": (variant(), 8, 128, "training", None),
    "plain forward": (variant(), 8, 128, "inference", None),
    "scanned and rematerialised": (
        variant(scan_layers=True, num_layers=6), 8, 128, "training", "nothing_saveable"
    ),
    "gated, grouped, rotary": (
        variant(gated_mlp=True, activation="silu", num_kv_heads=2, rotary=RotaryConfig()),
        8, 128, "training", None,
    ),
    "many words": (variant(vocab_size=8192), 4, 128, "training", None),
    "experts": (variant(moe=EXPERTS), 8, 128, "training", None),
    "recommender": (recommender(), 8, 64, "training", None),
    "recommender, full softmax": (recommender(**FULL), 4, 64, "training", None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_activations_within_a_factor_of_two_of_xla(case: str):
    config, rows, length, mode, remat = CASES[case]
    found = estimate_memory(config, rows, length, mode=mode, remat=remat)  # pyright: ignore[reportArgumentType]
    ratio = (found.activations + found.head) / measured(config, rows, length, mode, remat)
    assert 0.5 < ratio < 2, f"{ratio:.2f} of what XLA reports"


def test_cache_of_generation():
    found = estimate_memory(variant(num_kv_heads=2), 3, 100, mode="generation")
    assert found.cache == 2 * 2 * 3 * 100 * 2 * 16 * 4  # keys and values, L, B, S, J, H, float32
    assert found.activations < estimate_memory(variant(num_kv_heads=2), 3, 100).activations


def test_the_total_and_the_text():
    found = estimate_memory(MODEL, 8, 128, mode="training", optimizer=optax.adam(1e-3))
    parts = dataclasses.asdict(found)
    assert found.total == sum(parts.values())
    text = str(found)
    assert "optimizer state" in text
    assert "cache" not in text  # nothing of it
    assert text.splitlines()[-1].split()[0] == "total"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MODEL, 0, 8), "batch_size: expected above 0, found 0"),
        ((MODEL, 2, -1), "sequence_length: expected above 0, found -1"),
    ],
)
def test_sizes_that_cannot_be(arguments: Any, message: str):
    with pytest.raises(ValueError, match=message):
        estimate_memory(*arguments)
    with pytest.raises(ValueError, match="mode: expected inference, training or generation"):
        estimate_memory(MODEL, 1, 1, mode="serving")  # pyright: ignore[reportArgumentType]
