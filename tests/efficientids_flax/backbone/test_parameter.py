"""A parameter is that of Flax, and its shape is looked at."""

import jax
import jax.numpy as jnp
import pytest
from flax import errors
from flax import linen as nn

from efficientids_flax.backbone.parameter import parameter

ASKED: list[tuple[int, ...]] = []


def ones(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    del key
    ASKED.append(shape)
    return jnp.ones(shape)


class Doubled(nn.Module):
    @nn.compact
    def __call__(self) -> jax.Array:
        return 2 * parameter(self, "kernel", ones, (3,))


def test_the_initialiser_is_asked_only_where_there_is_no_parameter():
    ASKED.clear()
    variables = jax.eval_shape(Doubled().init, jax.random.key(0))
    assert variables["params"]["kernel"].shape == (3,)
    assert jax.eval_shape(Doubled().apply, variables).shape == (3,)
    assert ASKED == [(3,)]


def test_another_shape_or_none_is_an_error():
    with pytest.raises(errors.ScopeParamShapeError, match=r"shape \(3,\), .* has shape \(4,\)"):
        Doubled().apply({"params": {"kernel": jnp.ones(4)}})
    with pytest.raises(errors.ScopeParamNotFoundError):
        Doubled().apply({"params": {"other": jnp.ones(3)}})
