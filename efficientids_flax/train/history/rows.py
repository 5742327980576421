"""The metrics of each step, stored in columns; rows are made when they are read.

A row takes eight bytes per number. If there are more than `MOST` rows, every second one of the
older half is dropped, except those with an evaluation. `history.jsonl` has all of them.
"""

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, overload

import numpy as np

Row = dict[str, Any]
MOST = 1 << 20  # rows


class _Block:
    """Consecutive rows with the same names."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names, self.steps, self.values = names, array("q"), array("d")

    def row(self, place: int) -> Row:
        first, width = place * len(self.names), len(self.names)
        values = self.values[first : first + width]
        return {"step": self.steps[place], **dict(zip(self.names, values, strict=True))}

    def keep(self, chosen: np.ndarray) -> None:
        """Keep only the rows where `chosen` is True."""
        values = np.frombuffer(self.values, np.float64).reshape(len(chosen), -1)[chosen]
        steps = np.frombuffer(self.steps, np.int64)[chosen]
        self.values, self.steps = array("d", values.tobytes()), array("q", steps.tobytes())


class Rows(Sequence[Row]):
    """One row per step, in order; each has `step`, and metrics by name.

    Attributes:
        left_out: number of rows that were dropped from memory.
    """

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._more: dict[int, Row] = {}  # step -> values that are None, or were added later
        self._length, self.left_out = 0, 0

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._length))]
        place = index + self._length if index < 0 else index
        if not 0 <= place < self._length:
            raise IndexError(f"row {index} of {self._length}")
        ends = [*accumulate(len(block.steps) for block in self._blocks)]
        number = bisect_right(ends, place)
        return self._made(self._blocks[number], place - (ends[number - 1] if number else 0))

    def __iter__(self) -> Iterator[Row]:
        for block in self._blocks:
            for place in range(len(block.steps)):
                yield self._made(block, place)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != len(self):
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(one == two for one, two in zip(self, other, strict=True))

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        last = f", the last {self[-1]}" if self._length else ""
        return f"<{self._length} rows{last}>"

    def add_steps(self, first: int, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """Append consecutive steps; see `History.add_steps`."""
        block = self._block(tuple(names))
        block.steps.extend(range(first, first + len(rows)))
        block.values.extend(chain.from_iterable(rows))
        self._length += len(rows)
        if self._length > MOST:
            self._thin()

    def add(self, row: Mapping[str, Any]) -> None:
        """Add metrics to the row of a step, or append a new step after the others."""
        step = row["step"]
        values = {name: value for name, value in row.items() if name != "step"}
        if self._has(step):
            self._more.setdefault(step, {}).update(values)
            return
        numbers = [float("nan") if value is None else value for value in values.values()]
        if empty := {name: None for name, value in values.items() if value is None}:
            self._more[step] = dict(empty)
        self.add_steps(step, tuple(values), [numbers])

    def evaluated(self, step: int) -> dict[str, float]:
        """The finite evaluation metrics of a step; empty if there are none."""
        row = next((row for row in reversed(self) if row["step"] <= step), {"step": None})
        if row["step"] != step:
            return {}
        return {
            name: value
            for name, value in row.items()
            if name.startswith(("eval_", "test_")) and value is not None and math.isfinite(value)
        }

    def names(self) -> list[str]:
        """The distinct names of the metrics."""
        found = dict.fromkeys(name for block in self._blocks for name in block.names)
        return [*found, *{name for more in self._more.values() for name in more} - found.keys()]

    def column(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(steps, values) of a metric, float64, where it is finite."""
        later = {step: more[name] for step, more in self._more.items() if name in more}
        steps = [np.fromiter(later, np.float64, len(later))]
        values = [np.asarray([*later.values()], np.float64)]  # None is NaN
        for block in self._blocks:
            if name in block.names:
                table = np.frombuffer(block.values, np.float64).reshape(len(block.steps), -1)
                steps.append(np.asarray(block.steps, np.float64))
                values.append(table[:, block.names.index(name)].copy())
        every, found = np.concatenate(steps), np.concatenate(values)
        order = np.argsort(every, kind="stable")
        order = order[np.isfinite(found[order])]
        return every[order], found[order]

    def _made(self, block: _Block, place: int) -> Row:
        return block.row(place) | self._more.get(block.steps[place], {})

    def _block(self, names: tuple[str, ...]) -> _Block:
        """The last block, or a new one for other names."""
        if not self._blocks or self._blocks[-1].names != names:
            self._blocks.append(_Block(names))
        return self._blocks[-1]

    def _has(self, step: int) -> bool:
        for block in reversed(self._blocks):
            if block.steps and block.steps[0] <= step:
                place = int(np.searchsorted(np.frombuffer(block.steps, np.int64), step))
                return place < len(block.steps) and block.steps[place] == step
        return False

    def _thin(self) -> None:
        """Drop every second row of the older half, except those with evaluations."""
        evaluated = np.fromiter(self._more, np.int64, len(self._more))
        before = self._length // 2
        for block in self._blocks:
            steps = np.frombuffer(block.steps, np.int64)
            place = np.arange(len(steps))
            chosen = (place >= before) | (place % 2 == 0) | np.isin(steps, evaluated)
            before -= len(steps)
            del steps  # release the buffer, or the array could not be replaced
            self._length -= int((~chosen).sum())
            self.left_out += int((~chosen).sum())
            block.keep(chosen)
            if before <= 0:
                return
