"""The metrics of each step, in memory and as lines of `history.jsonl`."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

from efficientids_flax.train.history.rows import Row, Rows

NAME = "history.jsonl"
STEP = re.compile(r'"step": *(\d+) *[,}]')


class History:
    """Rows of metrics by step, written as they come.

    Attributes:
        rows: one row per step, in order; a very long run does not keep all, see `Rows`.
        missing: how many steps between the first and the restored one the file lacks.
    """

    def __init__(self, directory: Path | None = None, start: int = 0) -> None:
        """Start a history, or continue one after a restored step.

        Args:
            directory: directory of the file; None: keep it in memory only.
            start: the step that was restored; later lines of the file are dropped, since these
                steps are computed again.
        """
        self.rows, self.missing = Rows(), 0
        self._file: TextIO | None = None
        if directory is None:
            return
        self._path = path = directory / NAME
        directory.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("w") as file:
            step, seen = -1, set[str]()  # lines of one step
            for line, row in _read(path) if start else ():
                if row["step"] != step:
                    step, seen = row["step"], set()
                if step <= start and line not in seen:
                    file.write(line)
                    self.rows.add(row)
                    seen.add(line)
        part.replace(path)
        if self.rows:
            steps = start - self.rows[0]["step"] + 1
            self.missing = steps - len(self.rows) - self.rows.left_out
        self._file = path.open("a")

    def add(self, row: Mapping[str, Any]) -> None:
        """Add metrics to the row of a step."""
        self.rows.add(row)
        if self._file is not None:
            self._file.write(_line(row))

    def add_steps(self, first: int, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """Add consecutive steps.

        Args:
            first: number of the first step.
            names: names of the metrics.
            rows: their values, float [steps, metrics].
        """
        self.rows.add_steps(first, names, rows)
        if self._file is None:
            return
        form = "".join(f', "{name}": %r' for name in map(_escaped, names))
        lines = []
        for step, values in enumerate(rows, first):
            # Takes a third of json's time, which matters since it runs at every log point.
            if all(map(math.isfinite, values)):
                lines.append(f'{{"step": {step}{form % tuple(values)}}}\n')
            else:
                lines.append(_line({"step": step, **dict(zip(names, values, strict=True))}))
        self._file.write("".join(lines))

    def flush(self) -> None:
        """Flush, so that readers see what was added."""
        if self._file is not None:
            self._file.flush()

    def write_again(self) -> bool:
        """If the file was removed, write all rows again; returns whether it was."""
        if self._file is None or self._path.exists():
            return False
        self._file.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w")
        self._file.writelines(map(_line, self.rows))
        return True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_history(directory: Path) -> Rows:
    """The rows of a run's `history.jsonl`, one per step; a very long one is thinned, see `Rows`."""
    rows = Rows()
    for _, row in _read(directory / NAME):
        rows.add(row)
    return rows


def _read(path: Path) -> Iterator[tuple[str, Row]]:
    """(line, parsed row) of each valid line of the file, in the order of the steps.

    Somebody may have edited the file, so that its lines are in another order; they are then sorted.
    """
    if _in_order(path):
        return _lines(path)
    return iter(sorted(_lines(path), key=lambda found: found[1]["step"]))


def _in_order(path: Path) -> bool:
    """Whether the steps ascend; only they are read, in a fifth of the time of parsing."""
    if not path.exists():
        return True
    with path.open(encoding="utf-8", errors="replace") as file:
        found = [int(step[1]) for step in map(STEP.search, file) if step]
    return all(before <= after for before, after in pairwise(found))


def _lines(path: Path) -> Iterator[tuple[str, Row]]:
    """(line, parsed row) of each valid line of the file, as they lie there.

    Invalid lines are skipped: a killed process, a full disk or a power failure may leave a partial
    line or garbage.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict) and _is_step(row.get("step")) and _are_numbers(row):
                yield line.rstrip("\n") + "\n", row


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _are_numbers(row: Row) -> bool:
    return all(value is None or isinstance(value, int | float) for value in row.values())


def _escaped(name: str) -> str:
    """A name escaped for JSON and for a `%` format string."""
    return json.dumps(name)[1:-1].replace("%", "%%")


def _line(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON; NaN and infinity, which JSON lacks, become null."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(finite) + "\n"
