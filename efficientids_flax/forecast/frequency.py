"""How often a series has a point: the words of the field, the model's three kinds, dates ahead."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Frequency(NamedTuple):
    """A word such as '2W-SUN', understood.

    Attributes:
        kind: 0 up to daily, 1 weekly and monthly, 2 beyond.
        unit: of NumPy's dates, 'B' for business days.
        times: units from one point to the next.
        at_end: dates stand at the end of their month, quarter or year.
    """

    kind: int
    unit: str
    times: int
    at_end: bool = False


# fmt: off
UNITS = {
    # word         kind unit times at end   (pandas' words, old and new)
    ("L", "MS_"):  (0, "ms", 1, False),
    ("S", "SEC"):  (0, "s", 1, False),
    ("T", "MIN"):  (0, "m", 1, False),
    ("H",):        (0, "h", 1, False),
    ("D",):        (0, "D", 1, False),
    ("B",):        (0, "B", 1, False),
    ("U", "US"):   (0, "us", 1, False),
    ("W",):        (1, "W", 1, False),
    ("MS",):       (1, "M", 1, False),
    ("M", "ME"):   (1, "M", 1, True),
    ("QS",):       (2, "M", 3, False),
    ("Q", "QE"):   (2, "M", 3, True),
    ("YS", "AS"):  (2, "Y", 1, False),
    ("Y", "YE", "A"): (2, "Y", 1, True),
}
# fmt: on
WORDS = {word: row for words, row in UNITS.items() for word in words}
KINDS = (0, 1, 2)
_WORD = re.compile(r"(\d*)\s*([A-Z_]+?)(?:-[A-Z]{3})?")


def read_frequency(word: str) -> Frequency:
    """A frequency as pandas writes it: 'D', '15min', 'W-SUN', 'MS', 'QE'.

    Unlike `timesfm.freq_map`, which takes 'MS' and 'QS' for seconds since they end with an S.

    Raises:
        ValueError: no such word.
    """
    found = _WORD.fullmatch(word.strip().upper())
    if found is None or found[2] not in WORDS:
        known = ", ".join(sorted(word for word in WORDS if "_" not in word))
        raise ValueError(f"freq: no frequency {word!r}; expected one of {known}, or 0, 1 or 2")
    kind, unit, times, at_end = WORDS[found[2]]
    more = int(found[1] or 1)
    if more < 1:
        raise ValueError(f"freq: {word!r} stands still")
    return Frequency(kind, unit, times * more, at_end)


def kinds_of(
    freq: int | str | Sequence[int | str] | None, count: int, names: Sequence[str]
) -> np.ndarray:
    """int32 [B], the model's kind of each series.

    Args:
        freq: of all, or one a series; None is 0.
        count: B.
        names: of the series, for messages.

    Raises:
        ValueError: another number than 0, 1 and 2, a word that is none, too few or too many.
    """
    if freq is None or isinstance(freq, int | str | np.integer):
        return np.full(count, _kind(0 if freq is None else freq, "all series"), np.int32)
    given = list(freq)
    if len(given) != count:
        raise ValueError(f"freq: found {len(given)} for {count} series; expected one each, or one")
    return np.asarray([_kind(one, name) for one, name in zip(given, names, strict=True)], np.int32)


def _kind(freq: int | str, name: str) -> int:
    if isinstance(freq, str):
        return read_frequency(freq).kind
    value = int(freq)
    if isinstance(freq, bool) or value != freq or value not in KINDS:
        raise ValueError(
            f"freq: {name}: found {freq!r}; expected 0 (up to daily), 1 (weekly, monthly),"
            " 2 (beyond), or a word such as 'D'"
        )
    return value


def dates_ahead(last: np.datetime64, frequency: Frequency, count: int) -> np.ndarray:
    """The dates of the points that follow one: datetime64 [count].

    Args:
        last: date of the last point.
        frequency: how far it is from one to the next.
        count: how many.
    """
    steps = np.arange(1, count + 1) * frequency.times
    if frequency.unit == "B":
        day = last.astype("datetime64[D]")
        ahead = np.busday_offset(day, steps, roll="backward")
        return ahead.astype(last.dtype) + (last - day)
    if frequency.unit not in ("M", "Y"):
        return last + steps * np.timedelta64(1, frequency.unit)
    months = steps * (12 if frequency.unit == "Y" else 1)
    month = last.astype("datetime64[M]")
    ahead = month + months
    if frequency.at_end:
        days = (ahead + 1).astype("datetime64[D]") - 1
    else:  # the same day of the month, or its last where it is shorter
        day = last.astype("datetime64[D]") - month.astype("datetime64[D]")
        ends = (ahead + 1).astype("datetime64[D]") - 1
        days = np.minimum(ahead.astype("datetime64[D]") + day, ends)
    return days.astype(last.dtype) + (last - last.astype("datetime64[D]"))
