"""Parses times. The unit is recognised from a source's first rows, and all others must agree.

978300760             seconds, like all numbers below 1e11
1588687728923         milliseconds; from 1e14 microseconds, from 1e17 nanoseconds
978300760.25          seconds with a fraction; kept as microseconds
2014-10-11 03:34:02   ISO 8601, in UTC if no zone is given; kept as microseconds, but written as
                      seconds if all are whole; the zone may be " UTC", as BigQuery has it
"""

import datetime as dt
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from efficientids_flax.prepare.reading.malformed import NO_NUMBER, BadValueError

UNITS = {"s": 11, "ms": 14, "us": 17, "ns": 20}  # unit -> power of ten; its numbers are smaller
NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
PER_SECOND = {"s": 1, "ms": 1000, "us": 1_000_000, "ns": 1_000_000_000}
WHOLE = re.compile(r"[+-]?[0-9]+\Z")
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\Z")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
EXACT = 1 << 53  # floats represent whole numbers below it exactly
MICRO = 1_000_000
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
FIRST, LAST = (  # microseconds; Python's dates are limited to these
    (moment.replace(tzinfo=dt.UTC) - EPOCH) // dt.timedelta(microseconds=1)
    for moment in (dt.datetime.min, dt.datetime.max)
)


@dataclass(frozen=True)
class Times:
    """How the times of a source are read.

    Attributes:
        unit: unit of the source's numbers, a key of `UNITS`; always "us" for dates.
        form: "whole" numbers, numbers with a "fraction" of a second, or "date".
        given: whether the user chose the unit; then any number is accepted.
        decimal: whether some whole numbers are written with a decimal point or an exponent.
    """

    unit: str
    form: str = "whole"
    given: bool = False
    decimal: bool = False

    @property
    def kept(self) -> str:
        """The unit of the parsed times."""
        return "us" if self.form == "fraction" else self.unit

    def of(self, value: Any) -> int:
        """Parse the time of one row, in the unit `kept`.

        Args:
            value: a text, a number or a `datetime`.

        Raises:
            BadValueError: it is missing, or of another form or unit than the first rows.
        """
        if isinstance(value, dt.date):
            value = value.isoformat()
        if value is None or (isinstance(value, str) and not value.strip(" \t")):
            raise BadValueError("time is missing", "expected a time")
        number = _number(value)
        if self.form == "date":
            if number is None and (moment := date(value)) is not None:
                return moment
            raise BadValueError("time in another form", f"{value!r} is not a date as others are")
        if number is None:
            raise BadValueError(NO_NUMBER, f"{value!r} is no number of {NAMES[self.unit]}")
        if isinstance(number, float) and not math.isfinite(number):
            raise BadValueError("time is not finite", f"{value!r}")
        self._check_unit(value, number)
        if self.form == "fraction":
            return round(float(number) * MICRO)
        if int(number) != number:
            raise BadValueError("time has a fraction", f"{value!r}, the first rows have none")
        if abs(number) >= 1 << 63:
            raise BadValueError("time is too large", f"{value!r}")
        return int(number)

    def fits(self, least: int, greatest: int) -> bool:
        """Whether all numbers from `least` to `greatest` are in this unit."""
        return self.given or unit_of(least) == unit_of(greatest) == self.unit

    def _check_unit(self, value: Any, number: float) -> None:
        found = unit_of(number)
        if not self.given and found != self.unit:
            raise BadValueError(
                "time in another unit",
                f"{value!r} reads as {NAMES[found]}, the first rows as {NAMES[self.unit]}",
            )


def unit_of(number: float) -> str:
    """The unit, judging by the size of a number."""
    return next((unit for unit, power in UNITS.items() if abs(number) < 10**power), "ns")


def times_of(sample: Iterable[Any], unit: str | None) -> Times:
    """Decide how times are read, from those of the first rows.

    Args:
        sample: values as in the source; what is neither a number nor a date is ignored.
        unit: unit of numbers, if chosen by the user; None: recognise it.

    Returns:
        How to read them; if the sample has no times, as whole seconds.
    """
    given = unit is not None
    times = Times(unit or "s", given=given)
    votes: dict[str, int] = {}
    fraction = decimal = False
    for value in sample:
        found = value.isoformat() if isinstance(value, dt.date) else value
        number = _number(found)
        if number is None:
            if isinstance(found, str) and date(found) is not None:
                votes["date"] = votes.get("date", 0) + 1
        elif math.isfinite(number):
            votes[unit_of(number)] = votes.get(unit_of(number), 0) + 1
            fraction = fraction or int(number) != number
            decimal = decimal or not WHOLE.match(str(found).strip(" \t"))
    if not votes:
        return times
    most = max(votes, key=lambda name: votes[name])
    if most == "date":
        return Times("us", "date", given)
    times = replace(times, decimal=decimal, unit=times.unit if given else most)
    return replace(times, form="fraction") if fraction and times.unit == "s" else times


def date(text: str) -> int | None:
    """Microseconds since 1970 of an ISO 8601 date or time; None if the text is neither."""
    text = text.strip(" \t")
    if not DATE.match(text):
        return None
    try:
        moment = dt.datetime.fromisoformat(text[:-4] + "Z" if text.endswith(" UTC") else text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return (moment - EPOCH) // dt.timedelta(microseconds=1)


def _number(value: Any) -> int | float | None:
    """The number that a value is, or that its text spells; None if there is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if isinstance(value, Decimal):
        value = str(value)
    if not isinstance(value, str):
        return None
    text = value.strip(" \t")
    if WHOLE.match(text):
        return int(text) if len(text) < 25 else float(text)
    if NUMBER.match(text):
        number = float(text)
        return int(number) if number.is_integer() and abs(number) < EXACT else number
    return math.nan if text.lower().lstrip("+-") in {"nan", "inf", "infinity"} else None
