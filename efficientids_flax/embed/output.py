"""Writes `embeddings.npy`, and `embeddings.json` that describes it; resumable on request.

Letters: I items, E item width.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from efficientids_flax.whole_files import FULL, write_whole

FORMAT, VERSION = "efficientids-embeddings", 1


class Output:
    """A file of embeddings that is being written.

    It gets its name once complete. Until then it is `NAME.partial`, with a `NAME.partial.json` that
    records the progress and the inputs.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Check that the file can be written.

        Raises:
            ValueError: the name does not end in `.npy`.
            FileExistsError: it exists and `overwrite` is not set.
            FileNotFoundError: its folder does not exist.
        """
        self.path = Path(path)
        self.about = self.path.with_suffix(".json")
        self.partial = self.path.with_name(f"{self.path.name}.partial")
        self.progress = self.path.with_name(f"{self.path.name}.partial.json")
        if self.path.suffix != ".npy":
            raise ValueError(f"{path}: expected a name that ends in .npy")
        # A run that was killed between renaming the two files can still be resumed.
        half = self.partial.exists() and not self.path.exists()
        for file in (self.path,) if half and _is_ours(self.about) else (self.path, self.about):
            if file.exists() and not overwrite:
                raise FileExistsError(f"{file}: exists already; --overwrite replaces it")
        if not self.path.absolute().parent.is_dir():
            raise FileNotFoundError(f"{self.path.parent}: no such directory; make it first")

    def begin(self, shape: tuple[int, int], made_of: Mapping[str, Any]) -> tuple[np.memmap, int]:
        """Open or create the array; gives the rows, and how many parts of them are already done.

        Args:
            shape: (I, E).
            made_of: JSON values that determine every number; only a run with the same is resumed.

        Raises:
            ValueError: there is a partial file with other `made_of`.
            OSError: the rows cannot be written, for example for lack of space.
        """
        if self.partial.exists() and self.progress.exists():
            found = json.loads(self.progress.read_text(encoding="utf-8"))
            now = json.loads(json.dumps(dict(made_of)))
            other = [key for key in {*found["made_of"], *now} if found["made_of"].get(key)
                     != now.get(key)]  # fmt: skip
            if other:
                raise ValueError(
                    f"{self.partial}: was begun with another {' and '.join(sorted(other))}; finish"
                    f" it as it was begun, or remove it and {self.progress.name}"
                )
            rows = _opened(self.partial)
            if rows is not None and rows.shape == shape and rows.dtype == np.float32:
                return rows, int(found["done"])
        with self._told():
            self.progress.unlink(missing_ok=True)  # refers to rows that are gone
            rows = np.lib.format.open_memmap(self.partial, "w+", np.float32, shape)
            _reserve(self.partial)
            self.keep(rows, 0, made_of)
        return rows, 0

    def keep(self, rows: np.memmap, done: int, made_of: Mapping[str, Any]) -> None:
        """Flush the rows to disk, then record that `done` parts are complete."""
        rows.flush()
        write_whole(self.progress, json.dumps({"made_of": dict(made_of), "done": done}))

    def finish(self, about: Mapping[str, Any]) -> None:
        """Rename both files, the description first, so that no vectors lack one."""
        text = json.dumps({"format": FORMAT, "version": VERSION, **about}, indent=2)
        beside = self.about.with_name(f".{self.about.name}.tmp")
        beside.write_text(text + "\n", encoding="utf-8")
        self.path.unlink(missing_ok=True)
        beside.replace(self.about)
        self.partial.replace(self.path)
        self.progress.unlink(missing_ok=True)

    def write(self, embeddings: np.ndarray, about: Mapping[str, Any]) -> None:
        """Write the whole array at once: float [I, E]."""
        with self._told():
            with self.partial.open("wb") as file:
                np.save(file, np.ascontiguousarray(embeddings, np.float32))
            self.finish(about)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Name the file in errors of writing, and remove what was written."""
        try:
            yield
        except OSError as error:
            for file in (self.partial, self.progress):
                file.unlink(missing_ok=True)
            told = error.strerror or f"the disk may be full: {error}"  # NumPy gives no reason
            raise OSError(f"{self.path}: cannot be written ({told}); make room, or choose another"
                          " place by --out") from error  # fmt: skip


def _reserve(path: Path) -> None:
    """Allocate the file's space: writing to a mapped file on a full disk would kill the process."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno in FULL:
                raise


def _is_ours(path: Path) -> bool:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _opened(path: Path) -> np.memmap | None:
    """Open a partial array; None if the file is damaged, so that it is started anew."""
    try:
        return np.lib.format.open_memmap(path, mode="r+")
    except (ValueError, EOFError):
        return None


def drawn(num_items: int, width: int, seed: int) -> np.ndarray:
    """Normal random vectors, of standard deviation E^-0.5 and length about one: float32 [I, E]."""
    drawn = np.random.default_rng(seed).standard_normal((num_items, width), np.float32)
    return drawn / np.float32(np.sqrt(width))
