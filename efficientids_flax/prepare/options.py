"""What `prepare` is asked to do."""

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
    """How interactions become data to train on.

    Attributes:
        choice: layout and columns, where they are told.
        min_rating: rows below it are left out, before anything else.
        duplicates: which row is kept of those with the same user and item: the first or last in
            time (of equal times: in the source), or all.
        min_user, min_item: interactions that a user, an item has at least, repeated until none has
            fewer; a split by time counts those of the training part alone. 1: no filter.
        split: "leave-one-out" (each user's last is the test, the one before it validates; users
            with fewer than three are trained on), "time" (everyone's rows by two points in time) or
            "none".
        valid_from, test_from: of a split by time: a date, or a number in the source's unit; the
            first row of the part, and all that follow.
        valid_fraction, test_fraction: in their place, the share of interactions in the part; rows
            of one time are not torn apart.
        time_unit: of numbers, "s", "ms", "us" or "ns"; None: it is recognised.
        max_bad: malformed rows that are left out, of interactions and as many of items.
        engine: "duckdb" or "spark".
        memory: bytes that it all may take.
        threads: of the engine; None: all cores.
        shard_rows: after so many a new file begins with the next user.
        overwrite: replace an output that is there.
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
        """Whether users or items with few interactions are left out."""
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
