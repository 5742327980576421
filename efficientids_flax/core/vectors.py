"""Read item embeddings from files: `.npy`, or the original's text format, one line per item.

A text file has one item on each line, in order of ids, as numbers separated by white space. The
original reads the same files; it fills missing rows of the table with zeros, which is an error
here. Letters: I items, E width.
"""

import os
from pathlib import Path

import numpy as np

TEXTS = (".txt", ".csv", ".tsv")


def read_vectors(path: str | os.PathLike[str], num_items: int | None = None) -> np.ndarray:
    """The embeddings of a file.

    Args:
        path: a `.npy` file, or the original's text (`.txt`, `.csv` or `.tsv`).
        num_items: I, the number of items that the file must have; None: any.

    Returns:
        float32 [I, E]; a `.npy` file of float32 is memory-mapped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the content is wrong (naming the line of a text); another number of items.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file of item embeddings")
    if file.suffix == ".npy":
        found = _read_npy(file)
    elif file.suffix in TEXTS:
        found = _read_text(file)
    else:
        raise ValueError(
            f"{file}: expected .npy, or the original's text ({', '.join(TEXTS)}), by its name"
        )
    if num_items is not None and len(found) != num_items:
        raise ValueError(f"{file}: has {len(found)} items, expected {num_items}, the catalogue's")
    return found


def _read_npy(file: Path) -> np.ndarray:
    try:
        found = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{file}: is no readable .npy file of numbers: {error}") from error
    if found.ndim != 2 or found.dtype.kind != "f" or 0 in found.shape:
        raise ValueError(
            f"{file}: found {list(found.shape)} of {found.dtype}, expected floats [I, E]"
        )
    return found if found.dtype == np.float32 else found.astype(np.float32)


def _read_text(file: Path) -> np.ndarray:
    rows: list[np.ndarray] = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            words = line.split()
            try:
                with np.errstate(over="ignore"):  # infinity is reported below
                    row = np.asarray(words, np.float64).astype(np.float32)
            except ValueError as error:
                raise ValueError(
                    f"{file}:{number}: {error}; expected nothing but numbers with white space"
                    " between them, an item a line"
                ) from None
            if not words:
                raise ValueError(f"{file}:{number}: is empty; expected an item on each line")
            if rows and len(row) != len(rows[0]):
                raise ValueError(
                    f"{file}:{number}: {len(row)} numbers, the lines before have {len(rows[0])}"
                )
            if not np.isfinite(row).all():
                raise ValueError(f"{file}:{number}: a number is not finite in float32")
            rows.append(row)
    if not rows:
        raise ValueError(f"{file}: is empty; expected an item on each line")
    return np.stack(rows)
