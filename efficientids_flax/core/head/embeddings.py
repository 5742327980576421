"""The item table, its initializers, and the adapters between item and model width.

Letters: E item width, D model width, I items.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from efficientids_flax.backbone.kernels import parameter
from efficientids_flax.backbone.layers import ACTIVATIONS
from efficientids_flax.config import AdapterConfig
from efficientids_flax.core.vectors import TEXTS, read_vectors
from efficientids_flax.sharding import constrain

Initializer = Callable[..., jax.Array]
Source = str | os.PathLike[str] | np.ndarray | jax.Array | Initializer | None

RANDOM = nn.initializers.xavier_uniform()
NAMED = ("metadata", "wals")  # the original's methods: `<directory>/item_embeddings_<name>.npy`


class ItemEmbedding(nn.Module):
    """A table of vectors, stored [E, I] as PAXml does.

    Attributes:
        num_items: I (for a cluster table, the number of clusters).
        embedding_dim: E.
        initializer: initializer of the kernel [E, I], for example from
            `create_embedding_initializer`; None: Xavier uniform.
        param_dtype: dtype of the kernel; None: the initializer's.
    """

    num_items: int
    embedding_dim: int
    initializer: Initializer | None = None
    param_dtype: Any = None

    def setup(self) -> None:
        shape = (self.embedding_dim, self.num_items)
        given = () if self.param_dtype is None else (jnp.dtype(self.param_dtype),)
        self.kernel = parameter(self, "kernel", self.initializer or RANDOM, shape, *given)

    def __call__(self, ids: jax.Array) -> jax.Array:
        """Look items up: int [...] -> [..., E].

        Ids outside [0, I) are clipped, and their look-up has no gradient. So it is in the original,
        whose placeholder id for target positions reads the last item of a small table.
        """
        return self.with_table(ids)[0]

    def with_table(self, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The results of `__call__` and `table`; both gradients accumulate into one array."""
        # On a mesh, gather whole rows: E would be sharded along an axis that B already uses.
        return look_up(constrain(self.table(), "I E"), ids)

    def table(self) -> jax.Array:
        """The whole table, [I, E]."""
        return self.kernel.T


@jax.custom_vjp
def look_up(table: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows of a table [I, E], and the table.

    The backward pass scatter-adds the gradient of the rows into that of the table, not into zeros.
    """
    return table[jnp.clip(ids, 0, table.shape[0] - 1)], table


def _look_up_forward(table: jax.Array, ids: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
    return look_up(table, ids), ids


def _look_up_backward(
    ids: jax.Array, gradients: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, None]:
    of_rows, of_table = gradients
    at = jnp.where(ids >= 0, ids, of_table.shape[0])  # negative indices would count from the end
    return of_table.at[at].add(of_rows, mode="drop"), None


look_up.defvjp(_look_up_forward, _look_up_backward)


class _Adapter(nn.Module):
    """MLP of `num_layers` layers; every layer has the activation, also the last one."""

    item_embedding_dim: int | None
    model_dims: int | None
    hidden_dims: int | None = None
    num_layers: int = 1
    activation: str = "gelu_tanh"
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        AdapterConfig(self.num_layers, self.hidden_dims, self.activation)  # pyright: ignore[reportArgumentType]
        super().__post_init__()

    def _run(self, x: jax.Array, first: str, last: str) -> jax.Array:
        wanted = getattr(self, first)
        if wanted is not None and x.shape[-1] != wanted:
            raise ValueError(
                f"{type(self).__name__}: found vectors of width {x.shape[-1]}, {first} is {wanted}"
            )
        hidden = [self.hidden_dims or 0] * (self.num_layers - 1)
        for index, size in enumerate([*hidden, getattr(self, last)]):
            layer = nn.Dense(
                size,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                kernel_init=RANDOM,
                name=f"layers_{index}",
            )
            x = ACTIVATIONS[self.activation](layer(x))
        return x


class ItemInputAdapter(_Adapter):
    """Items to model width (the original's `item_input_dnn`).

    Attributes:
        item_embedding_dim, model_dims: E, D; None for the input width: taken from the input.
        hidden_dims: width between the layers; None if there is one layer.
        num_layers: total number of layers, each `activation(x W + b)`.
        activation: a name from `efficientids_flax.config`.
        dtype, param_dtype: dtype of the computation and of the parameters.

    Raises:
        ValueError: sizes that do not fit, see `AdapterConfig`.
    """

    @nn.compact
    def __call__(self, items: jax.Array) -> jax.Array:
        """[..., E] -> [..., D].

        Raises:
            ValueError: vectors of another width.
        """
        return self._run(items, "item_embedding_dim", "model_dims")


class ItemOutputAdapter(_Adapter):
    """Hidden states to item width (the original's `item_output_dnn`).

    Attributes and errors are those of `ItemInputAdapter`.
    """

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        """[..., D] -> [..., E].

        Raises:
            ValueError: vectors of another width.
        """
        return self._run(hidden, "model_dims", "item_embedding_dim")


def create_embedding_initializer(array: np.ndarray | jax.Array) -> Initializer:
    """Initializer that fills an `ItemEmbedding` with given vectors.

    Args:
        array: [I, E] finite floats, one row per item.

    Returns:
        `initializer(key, shape, dtype=None)` for the kernel's shape (E, I): returns the transposed
        array, in its own dtype if None. It raises ValueError for another shape, or for numbers that
        are not finite.

    Raises:
        ValueError: not [I, E] floats.
    """
    if array.ndim != 2 or not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            f"item embeddings: found {list(array.shape)} of {array.dtype}, expected [I, E] floats"
        )
    values = np.asarray(array)  # NumPy, since jax operations under jit are traced, without values

    def initializer(key: Any, shape: tuple[int, ...], dtype: Any = None) -> jax.Array:
        del key  # nothing is drawn
        if tuple(shape) != array.shape[::-1]:
            raise ValueError(_misfit(array.shape, tuple(shape)[::-1]))
        wrong = int(np.sum(~np.isfinite(values)))
        if wrong:
            raise ValueError(f"item embeddings: {wrong} of {values.size} numbers are not finite")
        kept = jax.dtypes.canonicalize_dtype(array.dtype)
        return jnp.asarray(values, kept if dtype is None else dtype).T

    return initializer


def embedding_initializer(
    source: Source,
    directory: str | os.PathLike[str] = "data",
    shape: tuple[int, int] | None = None,
) -> Initializer:
    """The initializer that a model's `item_embedding_init` stands for.

    Args:
        source: None or 'random'; an array [I, E]; the path of a `.npy` file with such an array,
            read when the parameters are made, or of the original's text format, see `core.vectors`;
            'metadata' or 'wals', short for `<directory>/item_embeddings_metadata.npy` and so on,
            which the data processing writes; or an initializer, which is returned as is.
        directory: folder of the named tables.
        shape: (I, E) that the array or file must have; None: checked later, by the initializer.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: neither a known name nor a path of a `.npy` file; or an array that does not fit.
    """
    if source is None or (isinstance(source, str) and source == "random"):
        return RANDOM
    if isinstance(source, np.ndarray | jax.Array):
        return _of_shape(source, shape)
    if callable(source):
        return source
    named = source in NAMED
    path = Path(directory) / f"item_embeddings_{source}.npy" if named else Path(source)
    if path.suffix not in (".npy", *TEXTS):
        raise ValueError(
            f"item_embedding_init: found '{source}', expected 'random', "
            f"{', '.join(map(repr, NAMED))}, the path of a .npy file, an array [I, E] or an "
            "initializer"
        )
    if not path.is_file():
        raise FileNotFoundError(f"item_embedding_init: no file {path}")
    if path.suffix in TEXTS:
        return _of_shape(read_vectors(path), shape)
    return _of_shape(np.load(path, mmap_mode="r", allow_pickle=False), shape)


def _of_shape(array: np.ndarray | jax.Array, shape: tuple[int, int] | None) -> Initializer:
    if shape is not None and array.ndim == 2 and array.shape != shape:
        raise ValueError(_misfit(array.shape, shape))
    return create_embedding_initializer(array)


def _misfit(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    return (
        f"item embeddings: found {found[0]} items of width {found[1]}, the table has {wanted[0]} of"
        f" width {wanted[1]}"
    )
