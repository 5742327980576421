"""Building blocks of a decoder layer: norms, dense projections, MLP, embeddings, positions.

Parameters have the shapes of `efficientids_flax.parameters`. Letters: B batch,
T time, D model width, F hidden width of the MLP, V words.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone.kernels import make_kernel, parameter, product
from efficientids_flax.backbone.lora import adaptation, lora_factors
from efficientids_flax.config import BackboneConfig
from efficientids_flax.moved import left_names
from efficientids_flax.sharding import constrain

INTERMEDIATES = "intermediates"  # collection that modules sow activations into

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "identity": lambda x: x,
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "squared_relu": lambda x: jnp.square(jax.nn.relu(x)),
    "cubed_relu": lambda x: jax.nn.relu(x) * jnp.square(jax.nn.relu(x)),
    "sine_relu": lambda x: jnp.sin(jax.nn.relu(x)),
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_10": lambda x: jnp.clip(jax.nn.gelu(x, approximate=False), -10, 10),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
    "hard_silu": jax.nn.hard_silu,
    "mish": jax.nn.mish,
    # arXiv 2209.10655, with the rounded numbers of transformers
    "laplace": lambda x: 0.5 * (1 + jax.lax.erf((x - 0.707107) / (0.282095 * math.sqrt(2)))),
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "elu": jax.nn.elu,
    "exp": jnp.exp,
    "softplus": jax.nn.softplus,
    "sqrt_softplus": lambda x: jnp.sqrt(jax.nn.softplus(x)),
}


def param_dtype(config: BackboneConfig) -> jnp.dtype:
    """Dtype of the parameters."""
    return jnp.dtype(config.param_dtype)


def stream_dtype(config: BackboneConfig) -> jnp.dtype:
    """Dtype between layers: embeddings, residual stream, hidden states."""
    return jnp.dtype(config.dtype)


def compute_dtype(config: BackboneConfig) -> jnp.dtype:
    """Dtype of computation within a layer.

    The stream's dtype; but float32 for half precision on CPUs, which multiply in float32 anyway, so
    rounding in between would only cost digits and time. PAXml's results on CPUs are without such
    rounding too: jaxlib 0.4.26 removed conversions to half precision and back.
    """
    dtype = stream_dtype(config)
    return (
        jnp.dtype(jnp.float32) if dtype.itemsize < 4 and jax.default_backend() == "cpu" else dtype
    )


# Rematerialisation for cheap elementwise functions: storing their intermediates for the backward
# pass takes several times the memory, and more time. Outside of a scan the compiler may choose.
made_again = partial(jax.checkpoint, prevent_cse=False)


class Norm(nn.Module):
    """LayerNorm or RMSNorm, in float32 (praxis/layers/normalizations.py).

    Attributes:
        config: kind, epsilon, and whether the scale is stored minus one.
        axes: number of trailing axes that are normed together.
        scaled_axes: number of trailing axes that the scale has; None: as `axes`.
    """

    config: BackboneConfig
    axes: int = 1
    scaled_axes: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D], in `compute_dtype`; `x` may be float32."""
        config, shape = self.config, x.shape[x.ndim - (self.scaled_axes or self.axes) :]
        dtype = compute_dtype(config)
        axes = tuple(range(-self.axes, 0))
        minus_one = config.norm_scale_plus_one
        initial = nn.initializers.zeros if minus_one else nn.initializers.ones
        scale, bias = None, None
        if config.norm_scale:
            scale = parameter(self, "scale", initial, shape, param_dtype(config))
        if config.norm_bias:
            bias = parameter(self, "bias", nn.initializers.zeros, shape, param_dtype(config))

        normed = _normed(
            config.norm, config.norm_epsilon, minus_one, config.norm_scale_in_float32, axes, dtype
        )
        return normed(x, scale, bias)


@lru_cache(maxsize=64)
def _normed(
    kind: str,
    epsilon: float,
    minus_one: bool,
    scale_in_float32: bool,
    axes: tuple[int, ...],
    dtype: jnp.dtype,
) -> Callable[[jax.Array, jax.Array | None, jax.Array | None], jax.Array]:
    """(x, scale, bias) -> normed; one function for all norms of a kind, which JAX traces once."""

    @made_again
    def normed(x: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> jax.Array:
        values = x.astype(jnp.float32)
        if kind == "layer_norm":
            values = values - jnp.mean(values, axis=axes, keepdims=True)
        variance = jnp.mean(jnp.square(values), axis=axes, keepdims=True)
        values = values * jax.lax.rsqrt(variance + epsilon)
        # In half precision, families differ in whether the cast or the scale comes first.
        if not scale_in_float32 and kind != "layer_norm":
            values = values.astype(dtype)
        if scale is not None:
            scale = scale.astype(values.dtype)
            values = values * (1 + scale if minus_one else scale)
        if bias is not None:
            values = values + bias.astype(values.dtype)
        return values.astype(dtype)

    return normed


class Dense(nn.Module):
    """A projection [D_in] -> [D_out] with an optional bias."""

    features: int
    use_bias: bool
    config: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D_in] -> [..., D_out]."""
        dtype, axes = compute_dtype(self.config), self.config.kernel_axes
        shape = (x.shape[-1], self.features)
        kernel = make_kernel(self, self.config, shape)
        given = x.astype(dtype)
        x = product(given, kernel.astype(dtype), axes=axes)
        if (lora := adaptation(self.config, self)) is not None:
            first, second = lora_factors(self, lora, shape, "in", dtype)
            x = x + product(product(given, first), second)
        self.sow(INTERMEDIATES, "product", x)
        if self.use_bias:
            bias = parameter(
                self, "bias", nn.initializers.zeros, (self.features,), param_dtype(self.config)
            )
            x = x + bias.astype(dtype)
        return x


class Mlp(nn.Module):
    """`down(act(gate(x)) * up(x))`, or `down(act(up(x)))` (Praxis `TransformerFeedForward`)."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array, paddings: jax.Array, deterministic: bool = True) -> jax.Array:
        """[B, T, D] -> [B, T, D]; padding (`paddings` [B, T] of 1) gives zeros.

        With `mlp_padding_first` padding is not masked here: its input was set to zero before.
        """
        config = self.config
        valid = (1.0 - paddings)[..., None]
        if config.mlp_padding_first:
            valid = jnp.ones_like(valid)
        up = Dense(config.hidden_dims, config.mlp_bias, config, name="up")(x)
        gate = None
        if config.gated_mlp:
            gate = Dense(config.hidden_dims, config.mlp_bias, config, name="gate")(x)

        activated, hidden = _combined(config.activation)(up, gate, valid)
        self.sow(INTERMEDIATES, "activated", activated)
        hidden = constrain(hidden, "B T F")
        hidden = nn.Dropout(config.mlp_dropout)(hidden, deterministic=deterministic)
        self.sow(INTERMEDIATES, "hidden", hidden)
        down = Dense(config.model_dims, config.mlp_bias, config, name="down")(hidden)
        return down * valid.astype(down.dtype)


@lru_cache(maxsize=64)
def _combined(
    activation: str,
) -> Callable[[jax.Array, jax.Array | None, jax.Array], tuple[jax.Array, jax.Array]]:
    """(up, gate, valid) -> (activated, hidden); one function for all layers, traced once."""

    @made_again
    def combined(
        up: jax.Array, gate: jax.Array | None, valid: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # In float32: in half precision each step would round.
        activated = ACTIVATIONS[activation]((up if gate is None else gate).astype(jnp.float32))
        hidden = activated if gate is None else activated * up.astype(jnp.float32)
        return activated.astype(up.dtype), (hidden * valid).astype(up.dtype)

    return combined


class Embedding(nn.Module):
    """A table [rows, D]; ids out of range give zeros, as Praxis' one-hot product does.

    Attributes:
        rows: number of rows.
        config: the decoder's.
        dims: width of a row; None: D.
    """

    rows: int
    config: BackboneConfig
    dims: int | None = None

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """int [B, T] -> [B, T, D]."""
        shape = (self.rows, self.dims or self.config.model_dims)
        table = parameter(
            self, "embedding", nn.initializers.normal(0.02), shape, param_dtype(self.config)
        )
        return take_rows(table, ids).astype(stream_dtype(self.config))


class LmHead(nn.Module):
    """The head's kernel [D, V] or [V, D], also used as tied embedding (Praxis `FullSoftmax`)."""

    config: BackboneConfig

    def setup(self) -> None:
        config = self.config
        width = config.embedding_dims or config.model_dims
        self.kernel = make_kernel(self, config, (width, config.vocab_size))
        if config.lm_head_bias:
            self.bias = parameter(
                self, "bias", nn.initializers.zeros, (config.vocab_size,), param_dtype(config)
            )

    def embed(self, ids: jax.Array) -> jax.Array:
        """int [B, T] -> [B, T, D], not scaled; ids outside [0, V) give zeros."""
        table = self.kernel if self.config.kernel_axes == "out_in" else self.kernel.T
        return take_rows(table, ids).astype(stream_dtype(self.config))

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """[B, T, D] -> float32 logits [B, T, V], before scaling and cap."""
        dtype = compute_dtype(self.config)
        kernel, axes = self.kernel.astype(dtype), self.config.kernel_axes
        logits = product(hidden.astype(dtype), kernel, jnp.float32, axes)
        logits = constrain(logits, "B T V")
        self.sow(INTERMEDIATES, "product", logits)
        if self.config.lm_head_bias:
            logits = logits + self.bias.astype(jnp.float32)
        return logits


def take_rows(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Rows of a table [rows, D]; zeros for ids outside [0, rows)."""
    inside = (ids >= 0) & (ids < table.shape[0])
    rows = jnp.take(table, jnp.where(inside, ids, 0), axis=0)
    return jnp.where(inside[..., None], rows, jnp.zeros((), table.dtype))


def sinusoids(
    positions: jax.Array, width: int, low: float = 1.0, high: float = 10_000.0
) -> jax.Array:
    """Sinusoidal positions (Praxis `PositionalEmbedding`): [...] -> [..., D], sines first.

    Args:
        positions: integers, may be negative.
        width: D.
        low, high: smallest and largest time scale.
    """
    count = width // 2
    step = math.log(high / low) / max(count - 1, 1)
    inverse = low * jnp.exp(jnp.arange(count, dtype=jnp.float32) * -step)
    angles = positions[..., None].astype(jnp.float32) * inverse
    waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return jnp.pad(waves, [(0, 0)] * positions.ndim + [(0, width % 2)])


def soft_cap(logits: jax.Array, cap: float | None) -> jax.Array:
    """`cap * tanh(logits / cap)`; the logits unchanged if the cap is None or 0."""
    return logits if not cap else cap * jnp.tanh(logits / cap)


__getattr__ = left_names(__name__)
