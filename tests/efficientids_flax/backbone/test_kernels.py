"""A parameter is that of Flax, with its shape looked at; a product is itself however it is made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import errors
from flax import linen as nn

from efficientids_flax.backbone import kernels
from efficientids_flax.backbone.kernels import parameter, product

ASKED: list[tuple[int, ...]] = []
OUTS = (3, 5)


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


def operands(rows, axes, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, rows, 7)), rng.normal(size=(7, *OUTS))
    stored = kernel if axes == "in_out" else np.moveaxis(kernel, 0, -1)
    return jnp.asarray(x, dtype), jnp.asarray(stored, dtype), x, kernel


@pytest.mark.parametrize("axes", ["in_out", "out_in"])
@pytest.mark.parametrize("few", [0, 256])
@pytest.mark.parametrize("rows", [1, 6])
def test_product_and_its_gradient(rows, few, axes, monkeypatch):
    monkeypatch.setattr(kernels, "FEW_ROWS", few)
    given, stored, x, kernel = operands(rows, axes)
    found = jax.jit(lambda x, kernel: product(x, kernel, axes=axes))(given, stored)
    # 7 products of float32 are added: a few units in the last place of the largest.
    np.testing.assert_allclose(found, np.tensordot(x, kernel, 1), atol=3e-6)

    cotangent = np.random.default_rng(1).normal(size=found.shape)
    by_x, by_kernel = jax.jit(
        jax.grad(lambda x, kernel: jnp.sum(product(x, kernel, axes=axes) * cotangent), (0, 1))
    )(given, stored)
    np.testing.assert_allclose(by_x, np.einsum("bsnh,dnh->bsd", cotangent, kernel), atol=1e-5)
    wanted = np.einsum("bsd,bsnh->dnh", x, cotangent)
    wanted = wanted if axes == "in_out" else np.moveaxis(wanted, 0, -1)
    np.testing.assert_allclose(by_kernel, wanted, atol=1e-5)


def test_the_result_has_the_dtype_that_is_asked_for():
    given, stored, x, kernel = operands(4, "out_in", jnp.bfloat16)
    found = product(given, stored, jnp.float32, "out_in")
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, np.tensordot(x, kernel, 1), atol=0.1)  # 8 bits of each factor


def first_operands(function, *arguments):
    """Shapes of the first operand of each matrix product."""
    text = jax.jit(function).lower(*arguments).as_text()
    return [line.split("(tensor<")[1].split("x")[0] for line in text.split("\n") if "dot_" in line]


def test_the_kernel_comes_first_for_few_rows_unless_differentiated():
    """The CPU backend lays out the second operand anew for each product."""
    x, kernel, *_ = operands(4, "out_in")  # 8 rows, 15 results of each
    run = lambda x, kernel: jnp.sum(product(x, kernel, axes="out_in"))  # noqa: E731
    assert first_operands(run, x, kernel) == ["15"]
    assert first_operands(jax.value_and_grad(run), x, kernel)[0] == "8"
    many, *_ = operands(200, "out_in")
    assert first_operands(run, many, kernel) == ["400"]
