"""NNX modules for the tests of training: the seed document's classifier, one with statistics."""

from typing import Any

import jax
from flax import nnx

from efficientids_flax.train.trainer import Trainer
from tests.efficientids_flax.train import networks
from tests.efficientids_flax.train.networks import CLASSES, WIDTH


class SimpleClassifier(nnx.Module):
    """As the document has it: `training` goes nowhere."""

    def __init__(self, input_dim, hidden_dims, num_classes, *, rngs: nnx.Rngs):
        super().__init__()  # Always call this

        layers = []
        prev_dim = input_dim

        # Build hidden layers
        for hidden_dim in hidden_dims:
            layers.append(nnx.Linear(prev_dim, hidden_dim, rngs=rngs))
            layers.append(nnx.relu)
            layers.append(nnx.Dropout(rate=0.1, rngs=rngs))
            prev_dim = hidden_dim

        # Output layer
        layers.append(nnx.Linear(prev_dim, num_classes, rngs=rngs))
        self.net = nnx.Sequential(*layers)

    def __call__(self, x, *, training=False):
        return self.net(x)


class Normalised(nnx.Module):
    """Takes no `training`: its mode is that of `train()` and `eval()`."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(WIDTH, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(rate=0.2, rngs=rngs)
        self.last = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.tanh(self.norm(self.first(x)))))


def classifier(seed: int = 0) -> SimpleClassifier:
    return SimpleClassifier(WIDTH, (8,), CLASSES, rngs=nnx.Rngs(seed))


def normalised(seed: int = 0) -> Normalised:
    return Normalised(nnx.Rngs(params=seed, dropout=seed + 1))


def trainer(module: nnx.Module, directory: Any = None, **options: Any) -> Trainer:
    return networks.trainer(directory, network=module, **options)


def values(module: nnx.Module) -> list[Any]:
    """Every number of a module, its random streams included."""
    leaves = jax.tree.leaves(nnx.to_pure_dict(nnx.state(module)))
    keys = [jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return [
        jax.random.key_data(leaf) if key else leaf for leaf, key in zip(leaves, keys, strict=True)
    ]
