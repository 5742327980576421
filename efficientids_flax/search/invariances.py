"""Uses the optimizer's momentum to judge settings that hardly change the loss.

Momentum is a sum of training gradients. Some settings make a part of every gradient zero, whatever
the data. Without a cap, adding a constant to all logits does not change their softmax, so the
gradients of the head's columns add up to zero. Without a cap, shifting all keys alike does not
change attention. If an activation is homogeneous of degree m, then kernel times gradient, summed
per hidden unit, is m times as large for the kernel before it as for the kernel after it (Euler's
theorem). With a cap or another activation the part is not zero, and its size tells which. So the
share of that part in the momentum is compared with its share in gradients of the samples, under
each setting that is tried. Random mixtures of the sequences' gradients can stand for momentum: step
size, batch size, decay and clipping only scale it as a whole.

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
MOST = 1 << 26  # limit of gradient values in memory at a time
# Lower bound of the error of a log share: parameters moved while momentum accumulated.
SPREAD = 0.35
Arrays = Mapping[str, np.ndarray]
Parts = tuple[np.ndarray, np.ndarray]  # the part, and the whole of which it is a share


@dataclass(frozen=True)
class Invariance:
    """A part of the gradient that is zero under some values of a setting.

    Attributes:
        key: the decoder's setting that it tests.
        leaves: maps a configuration to the parameters it needs, unstacked; empty if inapplicable.
        parts: (configuration, parameters, gradients) -> the part, and the whole.
        floor: share below which the part counts as zero.
    """

    key: str
    leaves: Callable[[BackboneConfig], list[str]]
    parts: Callable[[BackboneConfig, Arrays, Arrays], Parts]
    floor: float


class Momentum:
    """Compares settings by how well they explain the optimizer's momentum."""

    def __init__(
        self,
        config: ModelConfig,
        params: Mapping[str, Any],
        momentum: Mapping[str, Any],
        samples: Samples,
        clustering: ClusteringInfo | None = None,
    ) -> None:
        """Store what is compared.

        Args:
            config: the configuration that the parameters were saved with.
            params: parameters as `unstacked` returns them.
            momentum: nested dicts of arrays, with the paths of the parameters before `unstacked`.
            samples: sequences whose gradients are compared.
            clustering: the clustering, for a recommender.
        """
        self._prefix = HEAD if isinstance(config, EfficientIDSConfig) else ""
        self._params = flatten(params)
        self._momentum = flatten(unstacked(config, momentum))
        self._samples, self._clustering = samples, clustering
        mixing = np.random.default_rng(0).standard_normal((MIXTURES, samples.count))
        self._mixing = mixing.astype(np.float32)
        self._known: dict[tuple[ModelConfig, str], float | None] = {}

    def distance(self, config: ModelConfig, key: str) -> float | None:
        """Distance of the momentum from what a configuration predicts, in standard deviations.

        Args:
            config: the configuration that is tried.
            key: setting whose invariances are used.

        Returns:
            The largest distance over the invariances; None if the setting has none, or the
            gradients are too large to hold.
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
        if self._prefix:  # a recommender's is over words and clusters
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
        """The parts for random mixtures of gradients; parts are linear in the gradients."""
        each = [one.parts(config, params, {p: g[row] for p, g in gradients.items()})
                for row in range(rows)]  # fmt: skip
        mixing = self._mixing[:, :rows]
        part, whole = (mixing @ np.stack([np.ravel(parts[i]) for parts in each]) for i in (0, 1))
        return list(zip(part, whole, strict=True))

    def _gradients(self, config: ModelConfig, paths: list[str], rows: int) -> Arrays:
        """Gradients of each sequence minus their mean, [rows, ...], by path in the decoder."""
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
    """The momentum of a converted optimizer state, with the paths of the parameters.

    Args:
        states: name -> state, from `OptimizerState.optimizer`: optax's, or as PAXml stored them.

    Returns:
        Adam's first moments or SGD's trace; None if there is neither.
    """
    for state in states.values():
        fields = state._asdict() if hasattr(state, "_asdict") else state
        for name in ("mu", "trace"):
            if isinstance(fields, Mapping) and isinstance(fields.get(name), Mapping):
                return dict(fields[name])
    return None


def _share(parts: Parts, floor: float) -> float:
    """Log of the part's share in the whole, by squared norms, plus `floor`."""
    part, whole = (float(np.sum(np.square(values, dtype=np.float64))) for values in parts)
    return float(np.log(part / max(whole, 1e-300) + floor))


def _layers(config: BackboneConfig, *names: str) -> list[str]:
    """Paths of these parameters in every layer; those of an MLP only in layers that have one."""
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
    """Shift the kernel columns of all words [D, V] alike."""
    del config, params
    kernel = gradients["lm_head/kernel"]
    return kernel.sum(axis=-1), kernel


def _biases_leaves(config: BackboneConfig) -> list[str]:
    return ["lm_head/bias"] if config.vocab_size and config.lm_head_bias else []


def _biases(config: BackboneConfig, params: Arrays, gradients: Arrays) -> Parts:
    """Shift the biases of all words [V] alike."""
    del config, params
    bias = gradients["lm_head/bias"]
    return bias.sum(keepdims=True), bias


def _keys_leaves(config: BackboneConfig) -> list[str]:
    if not config.qkv_bias:
        return []
    name = "attention/qkv" if config.fused_qkv else "attention/key"
    return _layers(config, f"{name}/kernel", f"{name}/bias")


def _keys(config: BackboneConfig, params: Arrays, gradients: Arrays) -> Parts:
    """Shift all keys of a head by the same vector [H]."""
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
    """Scale each hidden unit up before the activation, and down after it."""

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


# Sums of float32 gradients are zero to 1e-5 of their size. Products with parameters are zero only
# to a few hundredths, since parameters moved while momentum accumulated.
EXACT, MOVED = 1e-9, 3e-3
INVARIANCES = (
    #          setting                leaves           parts      floor
    Invariance("final_logit_cap",     _words_leaves,   _words,    EXACT),
    Invariance("final_logit_cap",     _biases_leaves,  _biases,   EXACT),
    Invariance("attention_logit_cap", _keys_leaves,    _keys,     EXACT),
    Invariance("activation",          _units_leaves,   _units(1), MOVED),
    Invariance("activation",          _units_leaves,   _units(2), MOVED),
)  # fmt: skip
