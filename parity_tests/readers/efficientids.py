"""Folders of the original EfficientIDs system: `reference.npz`, `reference_at_checkpoint.npz`.

The first belongs to the parameters before training (`var/`) and contains the training steps. The
second belongs to the checkpoint, with the same batch.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from parity_tests.readers.paxml import NAMES, about, below, call_name
from parity_tests.readers.settings import settings_of
from parity_tests.recording import (
    MANIFEST,
    Arrays,
    Pass,
    Recording,
    Step,
    find_clustering,
    read_arrays,
    read_json,
)

AT_CHECKPOINT = "reference_at_checkpoint.npz"
FIELDS = (  # of the batch, but not seen by the model
    "eval_sample_weights", "prefix_lengths", "item_indices",
)  # fmt: skip


def read_efficientids(root: Path, arrays: Arrays) -> Recording:
    """Read a folder.

    Args:
        root: the folder.
        arrays: the arrays of its `reference.npz`.
    """
    manifest = read_json(root / MANIFEST)
    inputs = _batch(arrays, "in/")
    first = below(arrays, "var/")
    passes = []
    if (root / AT_CHECKPOINT).is_file():
        passes += _passes("", read_arrays(root / AT_CHECKPOINT), inputs, None)
    passes += _passes("initial_", arrays, inputs, first)
    losses = arrays.get("train_losses")
    steps = [
        Step(
            number,
            _batch(arrays, f"train_in/{number - 1}/"),
            below(arrays, f"step{number}/grad/"),
            below(arrays, f"step{number}/var/"),
            None if losses is None else losses[number - 1],
        )
        for number in range(1, 1 + sum(f"train_in/{n}/ids" in arrays for n in range(100)))
    ]
    return Recording(
        str(root),
        origin=f"EfficientIDs on paxml {manifest.get('versions', {}).get('paxml', '')}".strip(),
        names=NAMES,
        model="recommender",
        passes=tuple(passes),
        start=first,
        steps=tuple(steps),
        ends_at_checkpoint=True,
        settings=settings_of(manifest, recommender=True),
        clustering=find_clustering(root),
        **about(manifest),
    )


def _passes(prefix: str, arrays: Arrays, inputs: Arrays, parameters: Arrays | None) -> list[Pass]:
    """A training pass and an evaluation pass with one set of parameters."""
    found = []
    for mode in ("train", "eval"):
        own = below(arrays, f"{mode}/")
        outputs = below(own, "pred/")
        for kind in ("per_example", "summary"):
            outputs |= {f"{kind}/{name}": value for name, value in below(own, f"{kind}/").items()}
        outputs |= {name: own[name] for name in ("top10_indices",) if name in own}
        if mode == "train":
            outputs |= {f"check/{name}": value for name, value in below(arrays, "check/").items()}
        found.append(
            Pass(
                prefix + mode,
                inputs,
                activations=_activations(own),
                outputs=outputs,
                metrics=below(own, "metric/"),
                gradients=below(arrays, "grad/") if mode == "train" else {},
                parameters=parameters,
                train=mode == "train",
            )
        )
    return found


def _activations(own: Arrays) -> dict[str, np.ndarray]:
    """`act/<name>` for the original's own values, Praxis' paths for its layers."""
    named = {f"act/{name}": value for name, value in below(own, "act/").items()}
    return named | {call_name(name): value for name, value in below(own, "layer/").items()}


def _batch(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name: v for name, v in below(arrays, prefix).items() if name not in FIELDS}
