"""A small network with dropout and batch statistics, and data for it, shared by the tests."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.trainer import Trainer
from efficientids_flax.tree import unflatten

WIDTH, CLASSES, ROWS, BATCH = 6, 3, 48, 8
DRAWN = nn.initializers.lecun_normal()


def numbers(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Initial values for any key: to compile draws takes longer than all else of a first state."""
    del key
    drawn = np.random.default_rng(shape[0]).normal(size=shape) / np.sqrt(shape[0])
    return jnp.asarray(drawn, dtype)


class Network(nn.Module):
    dropout: float = 0.2
    statistics: bool = True
    kernel_init: Callable[..., jax.Array] = numbers

    @nn.compact
    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        x = nn.Dense(8, kernel_init=self.kernel_init)(x)
        if self.statistics:
            x = nn.BatchNorm(use_running_average=not training)(x)
        x = nn.Dropout(self.dropout, deterministic=not training)(nn.tanh(x))
        return nn.Dense(CLASSES, kernel_init=self.kernel_init)(x)


def loss_fn(params: Any, batch: Any, model_state: Any, rng: Any, apply_fn: Any) -> Any:
    logits, model_state = apply_fn(
        {"params": params, **model_state},
        batch["x"],
        training=True,
        rngs={"dropout": rng},
        mutable=["batch_stats"],
    )
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
    accuracy = jnp.mean(jnp.argmax(logits, axis=-1) == batch["y"])
    return entropy.mean(), {"accuracy": accuracy}, model_state


def numbers_of(model: Any) -> dict[str, Any]:
    """Parameters of a model of this package, which need no program that draws them."""
    rng = np.random.default_rng(0)
    shapes = sorted(parameter_shapes(model.config).items())
    return unflatten(
        {path: 0.3 * rng.normal(size=shape).astype(np.float32) for path, shape in shapes}
    )


def data(rows: int = ROWS, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, WIDTH)).astype(np.float32)
    law = np.random.default_rng(99).normal(size=(WIDTH, CLASSES))
    return {"x": x, "y": (x @ law).argmax(axis=-1).astype(np.int32)}


def batches(**options: Any) -> ShuffledBatches:
    return ShuffledBatches(data(), BATCH, seed=3, **options)


ADAMW = optax.adamw(1e-2)


def trainer(directory: Any = None, *, network: nn.Module | None = None, **options: Any) -> Trainer:
    options = {"progress": "none", "plot": False, "log_every": 4, "save_every": 5, **options}
    optimizer = options.pop("optimizer", ADAMW)
    options.setdefault("loss_fn", loss_fn)
    return Trainer(network or Network(), optimizer, directory, **options)


def begin(made: Trainer, seed: int = 0) -> Any:
    return made.create_train_state(jax.random.key(seed), next(iter(batches())))


def arrays(state: Any) -> list[np.ndarray]:
    """Every number of a state, as bytes on the host."""
    return [np.array(leaf) for leaf in jax.tree.leaves(state)]


def same(left: Any, right: Any) -> bool:
    """Bit for bit."""
    one, other = arrays(left), arrays(right)
    return len(one) == len(other) and all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True)
    )
