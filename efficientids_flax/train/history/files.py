"""What was measured at each step: in memory, and as lines of `history.jsonl`."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from efficientids_flax.train.history.rows import Row, Rows

NAME = "history.jsonl"


class History:
    """Rows of metrics by step, written as they come.

    Attributes:
        rows: one a step, in order; of a very long run not all of them, see `Rows`.
    """

    def __init__(self, directory: Path | None = None, start: int = 0) -> None:
        """Begin, or go on after a step.

        Args:
            directory: where the file lies; None: in memory alone.
            start: step that was restored; later lines of the file are dropped, since they are
                measured again.
        """
        self.rows = Rows()
        self._file: TextIO | None = None
        if directory is None:
            return
        self._path = path = directory / NAME
        directory.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("w") as file:
            for line, row in _read(path) if start else ():
                if row["step"] <= start:
                    file.write(line)
                    self.rows.add(row)
        part.replace(path)
        self._file = path.open("a")

    def add(self, row: Mapping[str, Any]) -> None:
        """Add to what there is of a step."""
        self.rows.add(row)
        if self._file is not None:
            self._file.write(_line(row))

    def add_steps(self, first: int, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """Add steps in a row.

        Args:
            first: the number of the first one.
            names: of the metrics.
            rows: their values, float [steps, metrics].
        """
        self.rows.add_steps(first, names, rows)
        if self._file is None:
            return
        form = "".join(f', "{name}": %r' for name in map(_escaped, names))
        lines = []
        for step, values in enumerate(rows, first):
            # A third of json's time: this is done at every log point.
            if all(map(math.isfinite, values)):
                lines.append(f'{{"step": {step}{form % tuple(values)}}}\n')
            else:
                lines.append(_line({"step": step, **dict(zip(names, values, strict=True))}))
        self._file.write("".join(lines))

    def flush(self) -> None:
        """Let readers see what was added."""
        if self._file is not None:
            self._file.flush()

    def write_again(self) -> bool:
        """Write all rows anew where somebody has removed the file; whether it was so."""
        if self._file is None or self._path.exists():
            return False
        self._file.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w")
        self._file.writelines(map(_line, self.rows))
        return True

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def read_history(directory: Path) -> Rows:
    """The rows of a run's `history.jsonl`, one a step; of a very long one see `Rows`."""
    rows = Rows()
    for _, row in _read(directory / NAME):
        rows.add(row)
    return rows


def _read(path: Path) -> Iterator[tuple[str, Row]]:
    """Lines of the file, as they stand and read.

    What is no row is left out: a line that a killed process or a full disk left torn, or bytes that
    a machine left when it went off.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                yield line, row


def _escaped(name: str) -> str:
    """A name inside of JSON's quotes and of a form for `%`."""
    return json.dumps(name)[1:-1].replace("%", "%%")


def _line(row: Mapping[str, Any]) -> str:
    """A row as JSON, which has no NaN and no infinity."""
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(finite) + "\n"
