"""`embeddings.npy` and the `embeddings.json` that says what they are; a part at a time, if asked.

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
    """A file of embeddings that is being made.

    It has its name when all of it is there. Until then it is `NAME.partial`, with a
    `NAME.partial.json` that says how much is done and of what.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Looks that it can be written.

        Raises:
            ValueError: the name does not end in `.npy`.
            FileExistsError: it is there and `overwrite` is not set.
            FileNotFoundError: its folder is not there.
        """
        self.path = Path(path)
        self.about = self.path.with_suffix(".json")
        self.partial = self.path.with_name(f"{self.path.name}.partial")
        self.progress = self.path.with_name(f"{self.path.name}.partial.json")
        if self.path.suffix != ".npy":
            raise ValueError(f"{path}: expected a name that ends in .npy")
        # One that was ended while it gave both their names goes on all the same.
        half = self.partial.exists() and not self.path.exists()
        for file in (self.path,) if half and _is_ours(self.about) else (self.path, self.about):
            if file.exists() and not overwrite:
                raise FileExistsError(f"{file}: exists already; --overwrite replaces it")
        if not self.path.absolute().parent.is_dir():
            raise FileNotFoundError(f"{self.path.parent}: no such directory; make it first")

    def begin(self, shape: tuple[int, int], made_of: Mapping[str, Any]) -> tuple[np.memmap, int]:
        """The rows, and how many parts of them are done already.

        Args:
            shape: (I, E).
            made_of: JSON values that decide every number; another run's part is not gone on with.

        Raises:
            ValueError: a part is there that was made of something else.
            OSError: there is no room for the rows, or they cannot be written.
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
            self.progress.unlink(missing_ok=True)  # it tells of rows that are gone
            rows = np.lib.format.open_memmap(self.partial, "w+", np.float32, shape)
            _reserve(self.partial)
            self.keep(rows, 0, made_of)
        return rows, 0

    def keep(self, rows: np.memmap, done: int, made_of: Mapping[str, Any]) -> None:
        """Say that so many parts are on the disk, once they are."""
        rows.flush()
        write_whole(self.progress, json.dumps({"made_of": dict(made_of), "done": done}))

    def finish(self, about: Mapping[str, Any]) -> None:
        """Give the files their names: what they are first, so that no vectors lack it."""
        text = json.dumps({"format": FORMAT, "version": VERSION, **about}, indent=2)
        beside = self.about.with_name(f".{self.about.name}.tmp")
        beside.write_text(text + "\n", encoding="utf-8")
        self.path.unlink(missing_ok=True)
        beside.replace(self.about)
        self.partial.replace(self.path)
        self.progress.unlink(missing_ok=True)

    def write(self, embeddings: np.ndarray, about: Mapping[str, Any]) -> None:
        """All at once: float [I, E]."""
        with self._told():
            with self.partial.open("wb") as file:
                np.save(file, np.ascontiguousarray(embeddings, np.float32))
            self.finish(about)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What keeps the rows from being written, with the name of the file; nothing is left."""
        try:
            yield
        except OSError as error:
            for file in (self.partial, self.progress):
                file.unlink(missing_ok=True)
            told = error.strerror or f"the disk may be full: {error}"  # NumPy gives no reason
            raise OSError(f"{self.path}: cannot be written ({told}); make room, or choose another"
                          " place by --out") from error  # fmt: skip


def _reserve(path: Path) -> None:
    """Take the room of a file: a mapped one that meets a full disk ends the process."""
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
    """The rows of a part; None where the file is damaged, so that it is begun anew."""
    try:
        return np.lib.format.open_memmap(path, mode="r+")
    except (ValueError, EOFError):
        return None


def drawn(num_items: int, width: int, seed: int) -> np.ndarray:
    """Normal vectors of length about one: float32 [I, E], of standard deviation E^-0.5."""
    drawn = np.random.default_rng(seed).standard_normal((num_items, width), np.float32)
    return drawn / np.float32(np.sqrt(width))
