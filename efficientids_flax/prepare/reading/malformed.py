"""Malformed rows: counted by kind; the first ones are kept with file and line."""

from dataclasses import dataclass, field

SHOWN = 5  # rows shown in a message
LONGEST = 200  # characters shown of a row
NO_NUMBER = "time is no number"  # a kind


class MalformedError(ValueError):
    """More rows are malformed than are allowed."""


class BadValueError(ValueError):
    """A value that is invalid for its row.

    Attributes:
        kind: what is wrong, in words that are the same for all such rows, for counting.
        told: what was found.
    """

    def __init__(self, kind: str, told: str) -> None:
        super().__init__(f"{kind}: {told}" if told else kind)
        self.kind, self.told = kind, told


def decoded(line: bytes) -> str:
    """Decode a line.

    Raises:
        BadValueError: it is not UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        found = f"{line[error.start]:#04x} at byte {error.start + 1} of the line"
        raise BadValueError("not UTF-8", f"{found}; `encoding` says how it is written") from error


@dataclass(frozen=True)
class BadRow:
    """A row that was skipped. `line` is its line in the file, in Parquet its row, from 1."""

    line: int
    kind: str
    told: str

    def __str__(self) -> str:
        return f"{self.line}: {self.kind}" + (f": {self.told}" if self.told else "")


@dataclass
class Malformed:
    """The rows skipped so far, in all files.

    Attributes:
        most: how many are allowed; one more is an error.
        kinds: kind -> count.
        first: the first few, with file and line.
    """

    most: int
    kinds: dict[str, int] = field(default_factory=dict)
    first: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of rows that were skipped."""
        return sum(self.kinds.values())

    def add(self, file: str, rows: list[BadRow]) -> None:
        """Count the malformed rows of a part of a file.

        Raises:
            MalformedError: there are more than `most`.
        """
        for row in rows:
            self.kinds[row.kind] = self.kinds.get(row.kind, 0) + 1
            if len(self.first) < SHOWN:
                self.first.append(f"{file}:{_short(str(row))}")
        if rows and self.count > self.most:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
            advice = "correct them, or leave them out with `max_bad` (they are counted)"
            for role in ("rating", "time"):
                if any(kind.startswith(role) for kind in self.kinds):
                    advice += f"; `no_{role}` does without the column"
            if NO_NUMBER in self.kinds:
                advice += (
                    "; dates are read as ISO 8601 has them, 2014-10-11 or 2014-10-11T03:34:02Z"
                )
            raise MalformedError(
                "\n  ".join([
                    f"{self.count} malformed rows up to here ({kinds}), {self.most} are allowed:",
                    *self.first,
                    advice,
                ])
            )  # fmt: skip


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
