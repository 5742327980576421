"""Reads a folder of recorded values, of any known kind, as a `Recording`.

Read `own` first, the documented format, then `paxml`, `efficientids` and `transformers`; `settings`
reads what a PAXml folder says about its model.
"""

import os
from pathlib import Path

from parity_tests.readers.efficientids import read_efficientids
from parity_tests.readers.own import read_recording
from parity_tests.readers.paxml import read_paxml
from parity_tests.readers.transformers import read_transformers
from parity_tests.recording import (
    ARRAYS,
    MANIFEST,
    Recording,
    RecordingError,
    is_recording,
    read_arrays,
)

__all__ = ["read"]

REFERENCE = "reference.npz"
KINDS = (
    # a key that only this kind has, and its reader
    ("in/input_item_weights", read_efficientids),
    ("in/ids", read_paxml),
    ("in/masked_ids", read_paxml),
    ("out/augmented_labels", read_paxml),
    ("full/logits", read_transformers),
    ("full/hidden_states", read_transformers),
)


def read(path: str | os.PathLike[str]) -> Recording:
    """Read a recording in the documented format, or a folder of another known kind.

    Raises:
        RecordingError: there is no recording, or it is damaged.
    """
    root = Path(path)
    if is_recording(root):
        return read_recording(root)
    if not (root / REFERENCE).is_file():
        found = "no such directory" if not root.is_dir() else "not a recording"
        raise RecordingError(
            f"{root}: {found}; expected {MANIFEST} and {ARRAYS}, or {REFERENCE}"
            " (docs/reference/recording-format.md)"
        )
    arrays = read_arrays(root / REFERENCE)
    for key, reader in KINDS:
        if key in arrays:
            return reader(root, arrays)
    raise RecordingError(
        f"{root / REFERENCE}: not of a language model; it holds {', '.join(sorted(arrays)[:4])}"
    )
