"""Digests of arrays, files and catalogues, to tell whether two are the same."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

WHOLE = 1 << 28  # bytes; of larger arrays, so many are hashed, in evenly spaced blocks
BLOCK = 1 << 20
LETTERS = 16


def digest(array: Any) -> str:
    """Digest of an array's dtype, shape and values; not of objects, which are addresses."""
    found = np.asarray(array)
    # Of bfloat16 and the like NumPy gives only the size, and no buffer.
    plain = found.dtype.kind != "V" or found.dtype.names is not None
    kind = found.dtype.str if plain else found.dtype.name
    made = hashlib.sha256(f"{kind} {found.shape}".encode())
    if found.nbytes <= WHOLE:
        made.update(_bytes(found))
    else:
        rows = found.reshape(-1) if found.flags.c_contiguous else found
        step = max(BLOCK * len(rows) // found.nbytes, 1)
        for start in np.linspace(0, len(rows) - step, WHOLE // BLOCK, dtype=np.int64).tolist():
            made.update(_bytes(rows[start : start + step]))
    return made.hexdigest()[:LETTERS]


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def digest_of(value: Any) -> str:
    """Digest of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:LETTERS]


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def catalogue_digest(ids: Iterable[str]) -> str:
    """SHA-256 of raw item ids in their order, see `catalogue_bytes`.

    Clusterings, embeddings and models store it, to prove that they belong to a catalogue.
    """
    made = hashlib.sha256()
    for one in ids:
        made.update(catalogue_bytes(one))
    return made.hexdigest()


def catalogue_bytes(item: str) -> bytes:
    """The bytes of an item in the digest of a catalogue: its id in UTF-8, and a line feed."""
    return f"{item}\n".encode()
