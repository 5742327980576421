"""What the optimizer's momentum says about settings that the loss hardly shows.

Momentum is a sum of gradients of training. Some settings make a part of every gradient zero,
whatever the data are: logits without a cap do not change their softmax when the same is added to
all of them, so that the gradients of a head's columns add up to nothing; keys that are shifted
alike change no attention without a cap; an activation that is homogeneous of degree m gives the
kernel before it m times what it gives the kernel after it (Euler's theorem). With a cap, or
another activation, there is something left, of a size that tells which. So the share of that part
in the momentum is compared with its share in gradients of the samples under each setting that is
tried. A random mixture of sequences' gradients is as good as momentum for it: step and batch size,
decay and clipping only scale all of it.

Letters: R mixtures, B sequences, D model width, V words, N heads, H head width, F hidden width.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.search.losses import ROWS, sequence_losses, unstacked
from efficientids_flax.search.samples import LEAST, Samples
from efficientids_flax.settings.table import BACKBONE, ModelConfig
from efficientids_flax.tree import flatten, unflatten

HEAD = "pretrained_lm/"
MIXTURES = 256  # R
MOST = 1 << 26  # numbers of gradients that are held at a time
# The logarithm of a share is not known better than this: parameters moved while momentum grew.
SPREAD = 0.35
Arrays = Mapping[str, np.ndarray]
Parts = tuple[np.ndarray, np.ndarray]  # the part, and the whole that it is a share of


@dataclass(frozen=True)
class Invariance:
    """A part of the gradient that some values of a setting make zero.

    Attributes:
        key: the setting of the decoder that it tells about.
        leaves: configuration -> parameters that it looks at, layers apart; none: it does not apply.
        parts: (configuration, parameters, gradients) -> the part, and the whole.
        floor: share that counts as zero.
    """

    key: str
    leaves: Callable[[BackboneConfig], list[str]]
    parts: Callable[[BackboneConfig, Arrays, Arrays], Parts]
    floor: float


class Momentum:
    """Compares settings with the optimizer's momentum."""

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Any],
        momentum: Mapping[str, Any],
        samples: Samples,
        clustering: ClusteringInfo | None = None,
    ) -> None:
        """Keeps what is compared.

        Args:
            config: of the parameters.
            params: as `unstacked` has them.
            momentum: nested dicts of arrays, of the parameters' paths before that.
            samples: whose gradients are compared.
            clustering: of a recommender.
        """
        self._prefix = HEAD if isinstance(config, EfficientIDSConfig) else ""
        self._params = flatten(params)
        self._momentum = flatten(unstacked(config, momentum))
        self._samples, self._clustering = samples, clustering
        mixing = np.random.default_rng(0).standard_normal((MIXTURES, samples.count))
        self._mixing = mixing.astype(np.float32)
        self._known: dict[tuple[ModelConfig, str], float | None] = {}

    def distance(self, config: ModelConfig, key: str) -> float | None:
        """How many standard deviations the momentum is from what a model would give.

        Args:
            config: of the model that is tried.
            key: setting whose invariances are looked at.

        Returns:
            The largest of them; None where there is none for this setting, or the gradients are
            too large to hold.
        """
        if (config, key) not in self._known:
            self._known[config, key] = self._distance(config, key)
        return self._known[config, key]

    def _distance(self, config: ModelConfig, key: str) -> float | None:
        backbone = config.backbone if isinstance(config, EfficientIDSConfig) else config
        name = key.removeprefix(BACKBONE) if self._prefix else key
        if self._prefix and name == key:
            return None
        fitting = [one for one in INVARIANCES if one.key == name and one.leaves(backbone)]
        if self._prefix:  # a recommender's softmax is over words and clusters, and its own
            fitting = [one for one in fitting if one.key != "final_logit_cap"]
        paths = sorted({path for one in fitting for path in one.leaves(backbone)})
        if not paths or not all(self._prefix + path in self._momentum for path in paths):
            return None
        size = sum(self._momentum[self._prefix + path].size for path in paths)
        rows = min(self._samples.count, MOST // max(size, 1))
        if rows < 2 * LEAST:
            return None
        gradients = self._gradients(config, paths, rows)
        params = {path: np.asarray(self._params[self._prefix + path]) for path in paths}
        ours = {path: np.asarray(self._momentum[self._prefix + path], np.float32) for path in paths}
        found = []
        for one in fitting:
            seen = _share(one.parts(backbone, params, ours), one.floor)
            shares = [_share(parts, one.floor)
                      for parts in self._mixed(one, backbone, params, gradients, rows)]  # fmt: skip
            spread = max(float(np.std(shares)), SPREAD)
            found.append(abs(seen - float(np.mean(shares))) / spread)
        return max(found)

    def _mixed(
        self, one: Invariance, config: BackboneConfig, params: Arrays, gradients: Arrays, rows: int
    ) -> list[Parts]:
        """The parts in random mixtures of the sequences' gradients; parts are linear in them."""
        each = [one.parts(config, params, {p: g[row] for p, g in gradients.items()})
                for row in range(rows)]  # fmt: skip
        mixing = self._mixing[:, :rows]
        part, whole = (mixing @ np.stack([np.ravel(parts[i]) for parts in each]) for i in (0, 1))
        return list(zip(part, whole, strict=True))

    def _gradients(self, config: ModelConfig, paths: list[str], rows: int) -> Arrays:
        """Gradients of each sequence less their mean, [rows, ...], by path in the decoder."""
        wanted = {self._prefix + path: jnp.asarray(self._params[self._prefix + path], jnp.float32)
                  for path in paths}  # fmt: skip

        def loss(chosen: Mapping[str, jax.Array], row: Mapping[str, jax.Array]) -> jax.Array:
            tree = unflatten({**self._params, **chosen})
            batch = {name: value[None] for name, value in row.items()}
            return sequence_losses(config, tree, batch, self._clustering)[0]

        found: dict[str, list[np.ndarray]] = {path: [] for path in paths}
        slope = jax.vmap(jax.grad(loss), in_axes=(None, 0))
        for start in range(0, rows, ROWS):
            stop = min(start + ROWS, rows)
            batch = {name: jnp.asarray(value[start:stop])
                     for name, value in self._samples.batch.items()}  # fmt: skip
            with jax.default_matmul_precision("highest"):
                made = slope(wanted, batch)
            for path in paths:
                found[path].append(np.asarray(made[self._prefix + path]))
        whole = {path: np.concatenate(parts) for path, parts in found.items()}
        return {path: value - value.mean(axis=0) for path, value in whole.items()}


def momentum_of(states: Mapping[str, Any]) -> dict[str, Any] | None:
    """The momentum in a converted optimizer state, as a tree of the parameters' paths.

    Args:
        states: name -> state, of `OptimizerState.optimizer`: optax's, or as PAXml stored them.

    Returns:
        Adam's first moments or SGD's trace; None where there is neither.
    """
    for state in states.values():
        fields = state._asdict() if hasattr(state, "_asdict") else state
        for name in ("mu", "trace"):
            if isinstance(fields, Mapping) and isinstance(fields.get(name), Mapping):
                return dict(fields[name])
    return None


def _share(parts: Parts, floor: float) -> float:
    """Logarithm of the part's share in the whole."""
    part, whole = (float(np.sum(np.square(values, dtype=np.float64))) for values in parts)
    return float(np.log(part / max(whole, 1e-300) + floor))


def _layers(config: BackboneConfig, *names: str) -> list[str]:
    """Paths in every layer that has an MLP."""
    routed = config.moe.layers if config.moe else ()
    return [
        f"layers_{layer}/{name}"
        for layer in range(config.num_layers)
        for name in names
        if not (name.startswith("mlp/") and layer in routed)
    ]


def _words_leaves(config: BackboneConfig) -> list[str]:
    if config.tied_embeddings or not config.vocab_size or config.kernel_axes != "in_out":
        return []
    return ["lm_head/kernel"]


def _words(config: BackboneConfig, params: Arrays, gradients: Arrays) -> Parts:
    """Kernels of all words [D, V], moved alike."""
    del config, params
    kernel = gradients["lm_head/kernel"]
    return kernel.sum(axis=-1), kernel


def _biases_leaves(config: BackboneConfig) -> list[str]:
    return ["lm_head/bias"] if config.vocab_size and config.lm_head_bias else []


def _biases(config: BackboneConfig, params: Arrays, gradients: Arrays) -> Parts:
    """Biases of all words [V], moved alike."""
    del config, params
    bias = gradients["lm_head/bias"]
    return bias.sum(keepdims=True), bias


def _keys_leaves(config: BackboneConfig) -> list[str]:
    if not config.qkv_bias:
        return []
    name = "attention/qkv" if config.fused_qkv else "attention/key"
    return _layers(config, f"{name}/kernel", f"{name}/bias")


def _keys(config: BackboneConfig, params: Arrays, gradients: Arrays) -> Parts:
    """All keys of a head, shifted by the same [H]."""
    del params
    parts = {path: value[1] if config.fused_qkv else value for path, value in gradients.items()}
    bias = [np.ravel(value) for path, value in parts.items() if path.endswith("bias")]
    rest = [np.ravel(value) for path, value in parts.items() if path.endswith("kernel")]
    return np.concatenate(bias), np.concatenate(rest)


def _units_leaves(config: BackboneConfig) -> list[str]:
    if config.kernel_axes != "in_out" or config.mlp_dropout or config.lora is not None:
        return []
    first = "mlp/gate" if config.gated_mlp else "mlp/up"
    bias = (f"{first}/bias",) if config.mlp_bias else ()
    return _layers(config, f"{first}/kernel", "mlp/down/kernel", *bias)


def _units(degree: int) -> Callable[[BackboneConfig, Arrays, Arrays], Parts]:
    """Each hidden unit, made larger before and smaller after the activation."""

    def parts(config: BackboneConfig, params: Arrays, gradients: Arrays) -> Parts:
        first = "gate" if config.gated_mlp else "up"
        before, after = [], []
        for path in gradients:
            if not path.endswith("mlp/down/kernel"):
                continue
            layer = path.removesuffix("down/kernel")
            inner = f"{layer}{first}/kernel"
            grown = np.sum(params[inner] * gradients[inner], axis=0)
            if config.mlp_bias:
                inner = f"{layer}{first}/bias"
                grown = grown + params[inner] * gradients[inner]
            before.append(grown)
            after.append(np.sum(params[path] * gradients[path], axis=1))
        one, two = np.concatenate(before), degree * np.concatenate(after)
        return one - two, np.concatenate([one, two])

    return parts


# Sums of float32 gradients are zero to 1e-5 of their size. Products with parameters are so only to
# a few hundredths, since these moved by some steps while momentum was gathered.
EXACT, MOVED = 1e-9, 3e-3
INVARIANCES = (
    #          setting                leaves           parts      floor
    Invariance("final_logit_cap",     _words_leaves,   _words,    EXACT),
    Invariance("final_logit_cap",     _biases_leaves,  _biases,   EXACT),
    Invariance("attention_logit_cap", _keys_leaves,    _keys,     EXACT),
    Invariance("activation",          _units_leaves,   _units(1), MOVED),
    Invariance("activation",          _units_leaves,   _units(2), MOVED),
)  # fmt: skip
