"""The recorded HuggingFace models: results of our decoder and of the real model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.backbone import Decoder
from efficientids_flax.backbone.masks import segments_from_positions
from efficientids_flax.config import BackboneConfig
from tests.paths import RECORDINGS

FOLDERS = RECORDINGS / "huggingface"
NAMES = sorted(path.name for path in FOLDERS.iterdir() if path.is_dir())
CASES = ("full", "left", "left_pos", "offset", "packed")  # the last only with a causal mask


def reference(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDERS / name / "reference.npz") as file:
        return {key: file[key] for key in file.files}


def cases(recorded: dict[str, np.ndarray]) -> list[str]:
    """The cases of `CASES` that were recorded."""
    return [case for case in CASES if f"{case}/logits" in recorded]


def context(
    recorded: dict[str, np.ndarray], case: str, config: BackboneConfig
) -> dict[str, np.ndarray]:
    """Paddings, segments and positions of a case; all are given, so that one compilation fits."""
    shape = recorded["input_ids"].shape
    mask = np.ones(shape, np.int32)
    if case.startswith("left"):
        mask = recorded["left/attention_mask"].astype(np.int32)
    positions = np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape)
    if config.positions_pass_padding:
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
    positions = recorded.get(f"{case}/position_ids", positions).astype(np.int32)
    segments = segments_from_positions(positions) if case == "packed" else mask
    return {
        "paddings": 1.0 - mask.astype(np.float32),
        "segment_ids": np.asarray(segments),
        "positions": positions,
    }


def forward(
    config: BackboneConfig, params: Any, **inputs: Any
) -> tuple[list[jax.Array], jax.Array]:
    """Hidden states with transformers' numbering (input of each layer, then normed), and logits."""

    def run(decoder: Decoder, **given: Any) -> tuple[jax.Array, jax.Array]:
        hidden = decoder(**given)
        return hidden, decoder.logits(hidden)

    def is_layer(module: Any, method: str) -> bool:
        return type(module).__name__ in ("Layer", "ScannedLayer") and method == "__call__"

    (hidden, logits), stored = Decoder(config).apply(
        {"params": params}, method=run, mutable=["intermediates"],
        capture_intermediates=is_layer, **inputs,
    )  # fmt: skip
    found = stored["intermediates"]
    between = [_output(config, found, layer) for layer in range(config.num_layers - 1)]
    return [found["layer_input"][0], *between, hidden], logits


def _output(config: BackboneConfig, found: Any, layer: int) -> jax.Array:
    if not config.scan_layers:
        return found[f"layers_{layer}"]["__call__"][0]
    block, place = divmod(layer, config.layers_per_block)
    if config.layers_per_block == 1:
        return found["layers"]["__call__"][0][0][block]
    return found["layers"][f"block_{place}"]["__call__"][0][block]


def mean_cross_entropy(logits: jax.Array, labels: np.ndarray) -> jax.Array:
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.mean(jnp.take_along_axis(log_probs, jnp.asarray(labels)[..., None], axis=-1))


def distance(found: Any, wanted: np.ndarray, where: np.ndarray | None = None) -> float:
    """Largest difference, relative to the largest magnitude."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    if where is not None:
        found, wanted = found[where], wanted[where]
    return float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))
