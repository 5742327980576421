"""Softmax over keys against that of JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone.attention.softmax import softmax


@pytest.mark.parametrize("extra", [None, 0.0, 2.5, -3.0])
def test_softmax_with_one_more_logit(extra):
    """As if there were a column more, in its values and in their slopes."""
    logits = jnp.asarray(np.random.default_rng(0).normal(0, 3, (2, 5)), jnp.float32)
    weights = jnp.arange(10.0).reshape(2, 5)

    def beside(logits):
        if extra is None:
            return jax.nn.softmax(logits)
        column = jnp.full((2, 1), extra)
        return jax.nn.softmax(jnp.concatenate([logits, column], axis=-1))[:, :-1]

    np.testing.assert_allclose(softmax(logits, extra), beside(logits), rtol=1e-6, atol=1e-7)
    found = jax.grad(lambda x: jnp.sum(weights * softmax(x, extra)))(logits)
    wanted = jax.grad(lambda x: jnp.sum(weights * beside(x)))(logits)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    masked = softmax(jnp.full((1, 3), -2e38), extra)
    np.testing.assert_allclose(masked, np.full((1, 3), 1 / 3 if extra is None else 0), rtol=1e-6)
