"""What is served at the moment: an export and named sets of its items, replaced as a whole.

A request takes the `Snapshot` at its arrival, and is answered from it even if it is replaced.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from efficientids_flax.serve.answers.catalogue import ItemId
from efficientids_flax.serve.answers.export import Export
from efficientids_flax.serve.limits import SETS

SET_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


class TooManySetsError(ValueError):
    """There is no room for another set."""


class Snapshot(NamedTuple):
    """What a request is answered from.

    Attributes:
        export: the model and its catalogue.
        generation: 1 for the first export, incremented by each reload.
        sets: name -> int32, the numbers of its items.
        bits: name -> bit of `membership`.
        membership: uint32 [I] on the device; bit b of an item is set if it is in the set of bit b.
    """

    export: Export
    generation: int
    sets: Mapping[str, np.ndarray]
    bits: Mapping[str, int]
    membership: Any


class Current:
    """Holds the current snapshot. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        """The current snapshot; None before the first export."""
        return self._snapshot

    def replace(self, export: Export) -> dict[str, int]:
        """Serve another export. Sets are kept, matched by the ids of their items.

        Returns:
            For each set that lost items, how many of them the new catalogue does not have.
        """
        with self._lock:
            old, lost = self._snapshot, {}
            sets: dict[str, np.ndarray] = {}
            for name, rows in {} if old is None else old.sets.items():
                before = old.export.catalogue  # pyright: ignore[reportOptionalMemberAccess]
                found = [export.catalogue.row(before.id(row)) for row in rows.tolist()]
                known = [row for row in found if row is not None]
                sets[name] = np.asarray(known, np.int32)
                if len(known) < len(found):
                    lost[name] = len(found) - len(known)
            generation = 1 if old is None else old.generation + 1
            self._snapshot = _snapshot(export, generation, sets)
            return lost

    def put(self, name: str, rows: Callable[[Snapshot], np.ndarray]) -> int:
        """Put a set under this name, new or in place of an earlier one.

        Args:
            name: see `SET_NAME`.
            rows: gives the numbers of its items in the catalogue of a snapshot.

        Returns:
            The number of its items, without duplicates.

        Raises:
            TooManySetsError: there are already `SETS` others.
        """
        with self._lock:
            old = self._present()
            if name not in old.sets and len(old.sets) >= SETS:
                raise TooManySetsError(f"there are {SETS} sets already, which is the most")
            found = np.unique(rows(old)).astype(np.int32)
            self._snapshot = _snapshot(old.export, old.generation, {**old.sets, name: found})
            return len(found)

    def remove(self, name: str) -> bool:
        """Remove a set; gives whether it existed."""
        with self._lock:
            old = self._present()
            left = {key: rows for key, rows in old.sets.items() if key != name}
            if there := len(left) < len(old.sets):
                self._snapshot = _snapshot(old.export, old.generation, left)
            return there

    def _present(self) -> Snapshot:
        if self._snapshot is None:
            raise RuntimeError("there is no export yet")
        return self._snapshot


def _snapshot(export: Export, generation: int, sets: Mapping[str, np.ndarray]) -> Snapshot:
    bits = {name: bit for bit, name in enumerate(sets)}
    membership = export.ranker.memberships({bits[name]: rows for name, rows in sets.items()})
    return Snapshot(
        export, generation, MappingProxyType(dict(sets)), MappingProxyType(bits), membership
    )


def read_set(path: str, export: Export) -> np.ndarray:
    """Read a file with one item id per line, as item numbers of a catalogue.

    Raises:
        OSError: the file cannot be read.
        ValueError: the catalogue does not have an item; names the line.
    """
    found = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), start=1):
        if not (text := line.strip()):
            continue
        ids: Iterable[ItemId] = (text, int(text)) if re.fullmatch(r"\d{1,18}", text) else (text,)
        rows = [row for one in ids if (row := export.catalogue.row(one)) is not None]
        if not rows:
            raise ValueError(f"{path}:{number}: {export.catalogue.missing(text)}")
        found.append(rows[0])
    return np.asarray(found, np.int32)
