"""Frequencies of series: pandas' words, the model's three kinds, and dates ahead."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Frequency(NamedTuple):
    """A parsed frequency, such as '2W-SUN'.

    Attributes:
        kind: the model's kind: 0 up to daily, 1 weekly and monthly, 2 beyond.
        unit: unit of NumPy's dates, or 'B' for business days.
        times: units from one point to the next.
        at_end: dates are the end of their month, quarter or year.
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

    'MS' and 'QS' are months and quarters; `timesfm.freq_map` takes them for seconds, as they end
    with an S.

    Raises:
        ValueError: the word is not known.
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
    """The model's kind of each series, int32 [B].

    Args:
        freq: one for all series, or one for each; None is 0.
        count: B.
        names: names of the series, for messages.

    Raises:
        ValueError: a number is not 0, 1 or 2, a word is unknown, or there are not B of them.
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
    """The dates of the points after a date, datetime64 [count].

    Args:
        last: date of the last point.
        frequency: the step between points.
        count: number of dates.
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
    else:  # the same day of the month, or the last day of a shorter month
        day = last.astype("datetime64[D]") - month.astype("datetime64[D]")
        ends = (ahead + 1).astype("datetime64[D]") - 1
        days = np.minimum(ahead.astype("datetime64[D]") + day, ends)
    return days.astype(last.dtype) + (last - last.astype("datetime64[D]"))
