"""Options of `prepare`."""

import codecs
import math
from dataclasses import dataclass, field

from efficientids_flax.prepare.layouts import NAMES, Choice
from efficientids_flax.prepare.reading import UNITS

DUPLICATES = ("keep-first", "keep-last", "all")
SPLITS = ("leave-one-out", "time", "none")
ENGINES = ("duckdb", "spark")
GIB = 1 << 30
LEAST_MEMORY = GIB // 4


@dataclass(frozen=True)
class PrepareOptions:
    """How interactions are prepared.

    Attributes:
        choice: the user's choices about the source's layout and columns.
        min_rating: rows with a lower rating are removed, before all other filters.
        duplicates: which of several rows with the same user and item is kept: the first or last in
            time (for equal times: in the source), or all.
        min_user, min_item: minimal interactions of each user and item; rows are removed until all
            have as many (k-core). A split by time counts only the training part. 1: no filter.
        split: "leave-one-out" (each user's last interaction is for test, the one before for
            validation; users with fewer than three are only trained on), "time" (all rows by two
            points in time) or "none".
        valid_from, test_from: boundaries of a split by time, a date or a number in the source's
            unit; the part begins with rows of that time.
        valid_fraction, test_fraction: instead of these, the share of interactions in the part;
            rows of equal time stay together.
        time_unit: unit of numeric times, "s", "ms", "us" or "ns"; None: recognise it.
        max_bad: how many malformed rows may be skipped, of interactions and again of items.
        engine: "duckdb" or "spark".
        memory: bytes that the whole run may use.
        threads: threads of the engine; None: all cores.
        shard_rows: a file ends with the user who reaches this number of rows.
        overwrite: replace an existing output.
    """

    choice: Choice = field(default_factory=Choice)
    min_rating: float | None = None
    duplicates: str = "keep-first"
    min_user: int = 1
    min_item: int = 1
    split: str = "leave-one-out"
    valid_from: str | None = None
    test_from: str | None = None
    valid_fraction: float | None = None
    test_fraction: float | None = None
    time_unit: str | None = None
    max_bad: int = 0
    engine: str = "duckdb"
    memory: int = 2 * GIB
    threads: int | None = None
    shard_rows: int = 1 << 22
    overwrite: bool = False

    def __post_init__(self) -> None:
        problems = [
            f"{name}: found {getattr(self, name)!r}, expected one of {', '.join(known)}"
            for name, known in _CHOICES.items()
            if getattr(self, name) not in known
        ]
        problems += [
            f"{name}: found {getattr(self, name)}, expected at least {least}"
            for name, least in _LEAST.items()
            if getattr(self, name) < least
        ]
        if self.choice.layout is not None and self.choice.layout not in NAMES:
            problems.append(
                f"layout: found {self.choice.layout!r}, expected one of {', '.join(NAMES)}"
            )
        problems += self._split_problems() + self._text_problems()
        if self.min_rating is not None and not math.isfinite(self.min_rating):
            problems.append(f"min_rating: found {self.min_rating}, expected a number")
        if self.min_rating is not None and "rating" in self.choice.without:
            problems.append("min_rating: needs the ratings that `no_rating` leaves out")
        if problems:
            raise ValueError(
                "\n  ".join(["options:", *problems] if len(problems) > 1 else problems)
            )

    @property
    def has_core(self) -> bool:
        """Whether there is a k-core filter."""
        return max(self.min_user, self.min_item) > 1

    def _text_problems(self) -> list[str]:
        problems = []
        if self.choice.separator == "":
            problems.append("separator: found none, expected what stands between columns")
        try:
            codecs.lookup(self.choice.encoding or "utf-8")
        except LookupError:
            problems.append(f"encoding: found {self.choice.encoding!r}, which Python does not know")
        return problems

    def _split_problems(self) -> list[str]:
        points = (self.valid_from, self.test_from)
        shares = (self.valid_fraction, self.test_fraction)
        told = any(one is not None for one in (*points, *shares))
        if self.split != "time":
            return ["`valid_from`, `test_from` and fractions go with the split by time"] * told
        if "time" in self.choice.without:
            return ["split: a split by time needs the times that `no_time` leaves out"]
        if any(one is not None for one in points) and any(one is not None for one in shares):
            return ["`valid_from` and `test_from` exclude fractions"]
        if self.test_from is None and self.test_fraction is None:
            return ["split: a split by time needs `test_from` or `test_fraction`"]
        if (
            any(one is not None and not 0 < one < 1 for one in shares)
            or sum(one or 0 for one in shares) >= 1
        ):
            return [
                f"`valid_fraction`, `test_fraction`: found {shares}, expected shares between 0 and"
                " 1, below 1 together"
            ]
        return []


_CHOICES = {
    "duplicates": DUPLICATES,
    "split": SPLITS,
    "engine": ENGINES,
    "time_unit": (None, *UNITS),
}
_LEAST = {"min_user": 1, "min_item": 1, "max_bad": 0, "memory": LEAST_MEMORY, "shard_rows": 1}
