"""Projections between model width and heads, with LoRA adapters and biases.

Letters: B batch, T time, D model width, N heads, H head width, U LoRA rank.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone.kernels import make_kernel, parameter, product
from efficientids_flax.backbone.layers import (
    INTERMEDIATES,
    compute_dtype,
    param_dtype,
)
from efficientids_flax.backbone.lora import adaptation, lora_factors
from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.parts import KernelAxes

Form = Literal["in", "fused", "out"]
Product = Callable[[jax.Array, jax.Array, KernelAxes], jax.Array]
INPUT_AXIS: dict[Form, int | None] = {"in": 0, "fused": 1, "out": None}  # moved last by 'out_in'
PRODUCTS: dict[Form, Product] = {
    # btd, dnh -> btnh or btd, dh -> bth
    "in": lambda x, kernel, axes: product(x, kernel, axes=axes),
    # btd, cdnh -> cbtnh
    "fused": lambda x, kernel, axes: jnp.moveaxis(
        product(x, jnp.moveaxis(kernel, 1, 0) if axes == "in_out" else kernel, axes=axes), 2, 0
    ),
    # btnh, dnh -> btd
    "out": lambda x, kernel, _: product(
        x.reshape(*x.shape[:2], -1), kernel.reshape(kernel.shape[0], -1), axes="out_in"
    ),
}

LORA_PRODUCTS: dict[Form, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    # btd, du, unh -> btnh
    "in": lambda x, first, second: product(product(x, first), second),
    # btd, cdu, cunh -> cbtnh
    "fused": lambda x, first, second: jnp.einsum(
        "cbtu,cunh->cbtnh", PRODUCTS["fused"](x, first, "in_out"), second
    ),
    # btnh, nhu, ud -> btd
    "out": lambda x, first, second: product(
        product(x.reshape(*x.shape[:2], -1), first.reshape(-1, first.shape[-1])), second
    ),
}


class Projection(nn.Module):
    """A product with a kernel, and an optional bias.

    Attributes:
        shape: shape of the kernel under `kernel_axes` 'in_out'.
        form: which axes of input and kernel are contracted, see `PRODUCTS`.
        bias_shape: shape of the bias.
        bias_axes: where axes of size 1 are inserted, so that the bias broadcasts.
    """

    shape: tuple[int, ...]
    form: Form
    bias_shape: tuple[int, ...]
    use_bias: bool
    config: BackboneConfig
    bias_axes: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The product (plus bias), in `compute_dtype`."""
        config, dtype = self.config, compute_dtype(self.config)
        kernel = make_kernel(self, config, self.shape, INPUT_AXIS[self.form])
        given = x.astype(dtype)
        x = PRODUCTS[self.form](given, kernel.astype(dtype), config.kernel_axes)
        if (lora := adaptation(config, self)) is not None:
            first, second = lora_factors(self, lora, self.shape, self.form, dtype)
            x = x + LORA_PRODUCTS[self.form](given, first, second)
        self.sow(INTERMEDIATES, "product", x)
        if self.use_bias:
            bias = parameter(
                self, "bias", nn.initializers.zeros, self.bias_shape, param_dtype(config)
            )
            x = x + jnp.expand_dims(bias.astype(dtype), self.bias_axes)
        return x
