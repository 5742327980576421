"""Softmax over keys against that of JAX."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone.attention.softmax import softmax


@pytest.mark.parametrize("extra", [None, 0.0, 2.5, -3.0])
def test_softmax_with_one_more_logit(extra):
    """As if there were a column more, in its values and in their slopes."""
    logits = np.random.default_rng(0).normal(0, 3, (2, 5)).astype(np.float32)
    weights = np.arange(10, dtype=np.float32).reshape(2, 5)

    def beside(logits):
        if extra is None:
            return jax.nn.softmax(logits)
        column = jnp.full((2, 1), extra)
        return jax.nn.softmax(jnp.concatenate([logits, column], axis=-1))[:, :-1]

    @partial(jax.jit, static_argnums=0)
    def with_slopes(function, logits):
        return function(logits), jax.grad(lambda x: jnp.sum(weights * function(x)))(logits)

    found, slopes = with_slopes(partial(softmax, extra=extra), logits)
    values, slopes_beside = with_slopes(beside, logits)
    np.testing.assert_allclose(found, values, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(slopes, slopes_beside, rtol=1e-5, atol=1e-6)
    masked = jax.jit(softmax)(np.full((1, 3), -2e38, np.float32), extra)
    np.testing.assert_allclose(masked, np.full((1, 3), 1 / 3 if extra is None else 0), rtol=1e-6)
