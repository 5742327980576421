"""Floating-point operations of a step, against closed forms and against layers written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig
from efficientids_flax.train.logs.costs import operations
from efficientids_flax.train.step import make_objective
from tests.efficientids_flax.train.networks import begin, trainer

ROWS, TIME = 2, 6
BATCH = {
    "ids": np.ones((ROWS, TIME), np.int32),
    "labels": np.ones((ROWS, TIME), np.int32),
    "weights": np.ones((ROWS, TIME), np.float32),
    "paddings": np.zeros((ROWS, TIME), np.float32),
}


def gradient_of_decoder(layers: int, *, scan: bool) -> float:
    """Counted without compiling anything."""
    config = BackboneConfig(
        vocab_size=40, num_layers=layers, model_dims=8, hidden_dims=16, num_heads=2,
        num_kv_heads=2, head_dim=4, scan_layers=scan,
    )  # fmt: skip
    objective = make_objective(Decoder(config))
    key = jax.random.key(0)
    params = jax.eval_shape(objective.init, key, BATCH)["params"]

    def gradient(params):
        return jax.grad(
            lambda params: objective.loss(params, BATCH, {}, key, objective.module.apply)[0]
        )(params)

    return operations(jax.make_jaxpr(gradient)(params))


def test_scanned_layers_count_as_often_as_they_run():
    """As those written out do; and each adds the same."""
    counts = {layers: gradient_of_decoder(layers, scan=True) for layers in (1, 2, 4)}
    assert counts[4] == gradient_of_decoder(4, scan=False)
    assert counts[4] - counts[2] == 2 * (counts[2] - counts[1])
    # Products with the parameters of a layer alone: forward once, backward twice.
    assert counts[2] - counts[1] > 3 * 2 * ROWS * TIME * (4 * 8 * 8 + 2 * 8 * 16)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_dense_network_has_its_closed_form(parts):
    """Forward and by the kernels for both layers, by the input for the second alone."""

    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.tanh(nn.Dense(8)(x)))

    def loss(params, batch, model_state, rng, apply_fn):
        return jnp.mean(apply_fn({"params": params}, batch["x"]) ** 2), {}, model_state

    made = trainer(
        network=Two(), loss_fn=loss, optimizer=optax.sgd(0.1), gradient_accumulation_steps=parts
    )
    made.train(begin(made), [{"x": np.ones((8, 6)), "y": np.ones(8, np.int32)}], num_steps=1)
    assert made._step is not None
    assert made._step.flops == 2 * 8 * (2 * 6 * 8 + 3 * 8 * 3)


def test_convolutions_and_the_longest_branch():
    def wide(found):
        return (found @ jnp.ones((5, 7))).sum()

    def branches(x, kernel):
        found = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID")
        return jax.lax.cond(found.sum() > 0, wide, jnp.sum, found)

    x = jax.ShapeDtypeStruct((2, 3, 5, 5), "float32")
    kernel = jax.ShapeDtypeStruct((4, 3, 1, 1), "float32")
    count = operations(jax.make_jaxpr(branches)(x, kernel))
    assert count == 2 * (2 * 4 * 5 * 5) * 3 + 2 * (2 * 4 * 5) * 5 * 7
