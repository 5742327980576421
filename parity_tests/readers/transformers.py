"""Reads folders of HuggingFace models: `config.json`, and `reference.npz` with several passes.

The passes are `full`, `right` and `left` (padding), `left_pos` and `offset` (positions given),
`packed`, and `inject` (embeddings given, with a loss and its gradient). Each has `logits`,
`hidden_states` or both.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from parity_tests.readers.paxml import below
from parity_tests.recording import Arrays, Pass, Recording, RecordingError, read_json

NAMES = "transformers"
HALF = "_bf16"  # suffix of a pass in bfloat16; the pass without it is the same in float32
SAME_BATCH = {"left_pos": "left", "inject": "right"}  # pass -> pass whose ids and mask it shares
IGNORED_LABEL = -100  # torch's cross entropy ignores this label


def read_transformers(root: Path, arrays: Arrays) -> Recording:
    """Read a folder.

    Args:
        root: the folder.
        arrays: the arrays of its `reference.npz`.
    """
    config: dict[str, Any] = {}
    if (root / "config.json").is_file():
        config = read_json(root / "config.json")
    ran = [key.rpartition("/") for key in arrays if key.endswith(("/logits", "/hidden_states"))]
    names = list(dict.fromkeys(name for name, _, _ in ran))
    text = {**config, **(config.get("text_config") or {})}
    # Without a causal mask, transformers ignores where packed rows begin.
    packs = bool(text.get("is_causal", True))
    passes = {name: _pass(name, arrays, packs) for name in names}
    for name in names:
        if name.endswith(HALF) and (exact := passes.get(name.removesuffix(HALF))):
            passes[name] = replace(passes[name], dtype="bfloat16", exact=exact)
    return Recording(
        str(root),
        origin=f"transformers {config.get('transformers_version', '')}".strip(),
        names=NAMES,
        model="language_model",
        passes=tuple(passes.values()),
        notes=config.get("model_type", ""),
    )


def _pass(name: str, arrays: Arrays, packs: bool) -> Pass:
    own = below(arrays, f"{name}/")
    batch = below(arrays, f"{SAME_BATCH.get(name, name)}/") | own
    if not {"input_ids", "inputs_embeds"} & batch.keys() and "input_ids" not in arrays:
        raise RecordingError(f"reference.npz: input_ids, {name}/input_ids: missing, one is needed")
    inputs = _inputs(batch, arrays.get("input_ids"), packs)
    # A long pass may have logits only.
    states = own.get("hidden_states", ())
    activations = {f"hidden_states/{place}": state for place, state in enumerate(states)}
    if "last_hidden_state" in own:
        activations["last_hidden_state"] = own["last_hidden_state"]
    outputs = {name: own[name] for name in ("logits", "loss", "generate") if name in own}
    gradients = {}
    if "grad_inputs_embeds" in own:
        gradients["inputs_embeds"] = own["grad_inputs_embeds"]
    return Pass(name, inputs, activations, outputs, gradients=gradients)


def _inputs(own: Arrays, ids: np.ndarray | None, packs: bool) -> dict[str, np.ndarray]:
    """The batch with our field names; a pass without ids of its own uses the common ones."""
    found: dict[str, np.ndarray] = {}
    if "inputs_embeds" in own:
        found["inputs_embeds"] = own["inputs_embeds"]
    else:
        found["ids"] = np.asarray(own.get("input_ids", ids), np.int32)
    mask = own.get("attention_mask")
    if mask is not None:
        found["paddings"] = (1 - mask).astype(np.float32)
    positions = own.get("position_ids")
    if positions is not None:
        found["segment_pos"] = positions.astype(np.int32)
        if mask is None and packs:
            found["segment_ids"] = segments(positions)
    if "labels" in own:
        labels = own["labels"]  # the label of each position, not shifted
        weights = (labels != IGNORED_LABEL) & (True if mask is None else mask > 0)
        found["labels"] = np.where(weights, labels, 0).astype(np.int32)
        found["weights"] = weights.astype(np.float32)
    return found


def segments(positions: np.ndarray) -> np.ndarray:
    """Number of each token's segment, from 1; a new one begins where positions do not follow."""
    breaks = np.diff(positions, axis=1) != 1
    first = np.ones((positions.shape[0], 1), bool)
    return np.cumsum(np.concatenate([first, breaks], axis=1), axis=1).astype(np.int32)
