"""Times the gradient step of our decoder; the counterpart of parity_tests/record/step_time.py.

Says "ready" and the number of parameters when compiled; then answers each line on its input with
the seconds that one step took.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig
from efficientids_flax.losses import language_model_loss


def config_of(size: dict[str, int]) -> BackboneConfig:
    """What `step_time.language_model` makes: Praxis' defaults with GELU and fused projections."""
    return BackboneConfig(
        vocab_size=size["vocab_size"],
        num_layers=size["num_layers"],
        model_dims=size["model_dims"],
        hidden_dims=size["hidden_dims"],
        num_heads=size["num_heads"],
        num_kv_heads=size["num_heads"],
        head_dim=size["model_dims"] // size["num_heads"],
        scan_layers=True,
        norm="layer_norm",
        norm_bias=True,
        norm_scale_plus_one=True,
        embedding_scale="sqrt_dim",
        position_embedding="sinusoidal",
        fused_qkv=True,
        qkv_bias=True,
        attention_out_bias=True,
        query_scaling="per_dim_scale",
        mlp_bias=True,
        activation="gelu_tanh",
        lm_head_bias=True,
    )


def main() -> None:
    """Compile, then time a step a line."""
    size = json.loads(sys.argv[1])
    config = config_of(size)
    decoder = Decoder(config)
    rng = np.random.default_rng(0)
    shape = (size["batch"], size["time"])
    words = rng.integers(0, size["vocab_size"], (shape[0], shape[1] + 1)).astype(np.int32)
    batch = {
        "ids": jnp.asarray(words[:, :-1]), "labels": jnp.asarray(words[:, 1:]),
        "paddings": jnp.zeros(shape), "weights": jnp.ones(shape),
    }  # fmt: skip

    def logits(module: Decoder, ids: jax.Array, paddings: jax.Array) -> jax.Array:
        return module.logits(module(ids, paddings=paddings))

    params = decoder.init(jax.random.key(0), batch["ids"], batch["paddings"], method=logits)

    def loss(params: dict) -> jax.Array:
        found = decoder.apply(params, batch["ids"], batch["paddings"], method=logits)
        assert isinstance(found, jax.Array)
        return language_model_loss(config, found, batch, train=True).total_loss

    step = jax.jit(jax.value_and_grad(loss))
    jax.block_until_ready(step(params))
    count = sum(leaf.size for leaf in jax.tree_util.tree_leaves(params))
    print("ready", count, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        jax.block_until_ready(step(params))
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
