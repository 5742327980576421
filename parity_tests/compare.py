"""Runs a converted model on a recorded batch and says how far it is from what PAXml computed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.recommender import Recommender
from efficientids_flax.load import flatten

# Largest difference relative to the largest magnitude of the recorded array, by compute dtype.
# float32: some tens of roundings of 6e-8 (observed: forward at most 8e-7, gradients 1.1e-6).
# bfloat16: PAXml rounds between other operations than XLA's fusions do today; one step of bfloat16
# is 8e-3 (observed: 2e-2).
FORWARD = {"float32": 2e-6, "bfloat16": 4e-2}
GRADIENT = {"float32": 4e-6, "bfloat16": 8e-2}

Recorded = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Difference:
    """How far one array is from the recorded one.

    Attributes:
        name: key in the recording.
        worst: largest difference relative to the largest recorded magnitude.
        tolerance: what is allowed.
    """

    name: str
    worst: float
    tolerance: float

    @property
    def passes(self) -> bool:
        """Whether it is within the tolerance (NaN is not)."""
        return self.worst <= self.tolerance


def first_above(differences: list[Difference]) -> Difference | None:
    """The first in the order of the computation that is not within its tolerance."""
    return next((difference for difference in differences if not difference.passes), None)


def compare_decoder(config: BackboneConfig, params: Any, recorded: Recorded) -> list[Difference]:
    """Layer outputs (where the layers are not stacked), final norm and logits, in that order."""
    optional = {"segment_ids": "in/segment_ids", "positions": "in/segment_pos"}
    given: dict[str, Any] = {
        name: recorded[key] for name, key in optional.items() if key in recorded
    }

    def run(module: Decoder) -> jax.Array:
        ids, paddings = jnp.asarray(recorded["in/ids"]), jnp.asarray(recorded["in/paddings"])
        hidden = module(ids, paddings=paddings, **given)
        return module.logits(hidden)

    def apply(params: Any) -> Any:
        return Decoder(config).apply(
            {"params": params}, method=run, capture_intermediates=True, mutable=["intermediates"]
        )

    logits, state = _exactly(apply, params)
    seen = {
        f"act/{key.removesuffix('/__call__')}": value[0]
        for key, value in flatten(state["intermediates"]).items()
    } | {"out/logits": logits}
    order = [*sorted(key for key in recorded if key.startswith("act/layers"))]
    order += [key for key in ("act/final_norm", "out/logits") if key in recorded]
    return [_difference(key, seen[key], recorded[key], FORWARD[config.dtype]) for key in order]


def compare_recommender(
    config: EfficientIDSConfig, clustering: ClusteringInfo | None, params: Any, recorded: Recorded
) -> list[Difference]:
    """Hidden states, scores of the catalogue, training and evaluation loss."""
    model, batch = Recommender(config, clustering), _batch(recorded)

    def run(module: Recommender) -> dict[str, jax.Array]:
        return {
            "act/hidden": module.head_inputs(batch).hidden,
            "out/scores": module.scores(batch),
            "out/train_loss": module.loss(batch),
            "out/eval_loss": module.loss(batch, train=False),
        }

    found: Any = _exactly(lambda params: model.apply({"params": params}, method=run), params)
    tolerance = FORWARD[config.backbone.dtype]
    order = ("act/hidden", "out/scores", "out/train_loss", "out/eval_loss")
    return [_difference(key, found[key], recorded[key], tolerance) for key in order]


def compare_gradients(
    config: EfficientIDSConfig,
    clustering: ClusteringInfo | None,
    params: Any,
    recorded: Recorded,
    sources: Mapping[str, str],
) -> list[Difference]:
    """Gradient of the training loss for every parameter that has a recorded one.

    Args:
        config, clustering: of the model.
        params: converted parameters.
        recorded: `grad/<path in PAXml>` among its keys.
        sources: parameter path -> path in PAXml (`params/lm/...`), as in a manifest.
    """
    model, batch = Recommender(config, clustering), _batch(recorded)
    loss = jax.grad(lambda params: model.apply({"params": params}, batch, method=model.loss))
    gradients = flatten(_exactly(loss, params))
    tolerance = GRADIENT[config.backbone.dtype]
    return [
        _difference(f"grad/{source}", gradients[path], recorded[f"grad/{source}"], tolerance)
        for path, source in sources.items()
        if f"grad/{source}" in recorded
    ]


def _batch(recorded: Recorded) -> dict[str, Any]:
    return {key[3:]: value for key, value in recorded.items() if key.startswith("in/")}


def _exactly(function: Callable[[Any], Any], params: Any) -> Any:
    """Run jitted, with products in full float32 on any device."""
    with jax.default_matmul_precision("highest"):
        return jax.jit(function)(params)


def _difference(name: str, got: Any, want: np.ndarray, tolerance: float) -> Difference:
    want = want.astype(np.float32)
    scale = max(float(np.abs(want).max()), 1e-6)
    worst = float(np.abs(np.asarray(got, np.float32) - want).max()) / scale
    return Difference(name, worst, tolerance)
