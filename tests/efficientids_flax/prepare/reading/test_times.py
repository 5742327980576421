"""Times: which unit they count is recognised, and kept to."""

import datetime as dt
from typing import Any

import pytest

from efficientids_flax.prepare.reading.malformed import BadValueError
from efficientids_flax.prepare.reading.times import Times, times_of


@pytest.mark.parametrize(
    ("sample", "unit", "form", "kept"),
    [
        (["978300760", "0", "12"], "s", "whole", "s"),
        ([1, 2, 3], "s", "whole", "s"),
        (["1588687728923", "1588687728924"], "ms", "whole", "ms"),
        ([1588687728923456], "us", "whole", "us"),
        (["1588687728923456789"], "ns", "whole", "ns"),
        (["978300760.0", "9.7e8"], "s", "whole", "s"),
        (["978300760.25", "978300761"], "s", "fraction", "us"),
        (["2014-10-11", "2014-10-11 03:34:02", "x"], "us", "date", "us"),
        ([dt.datetime(2014, 10, 11)], "us", "date", "us"),
        ([dt.date(2014, 10, 11)], "us", "date", "us"),
        ([], "s", "whole", "s"),
        (["", "n/a", None, True], "s", "whole", "s"),
        (["nan", "inf", "5"], "s", "whole", "s"),
    ],
)
def test_the_first_rows_tell(sample: list[Any], unit: str, form: str, kept: str):
    found = times_of(sample, None)
    assert (found.unit, found.form, found.kept) == (unit, form, kept)


@pytest.mark.parametrize(
    ("times", "value", "expected"),
    [
        (Times("s"), " 978300760\t", 978300760),
        (Times("s"), 978300760.0, 978300760),
        (Times("s"), "-5", -5),
        (Times("ns"), "1588687728923456789", 1588687728923456789),
        (Times("s", "fraction"), "0.000001", 1),
        (Times("us", "date"), "1970-01-01", 0),
        (Times("us", "date"), "1969-12-31T23:59:59.5", -500_000),
        (Times("us", "date"), "1970-01-01T01:00:00+01:00", 0),
        (Times("us", "date"), "1970-01-01 00:00:01.5 UTC", 1_500_000),  # as BigQuery writes it
        (Times("us", "date"), dt.datetime(1970, 1, 1, 0, 0, 1), 10**6),
        (Times("s", given=True), "1588687728923", 1588687728923),
    ],
)
def test_values(times: Times, value: Any, expected: int):
    assert times.of(value) == expected


@pytest.mark.parametrize(
    ("times", "value", "kind"),
    [
        (Times("s"), "1588687728923", "time in another unit"),
        (Times("ms"), "978300760", "time in another unit"),
        (Times("s"), "2014-10-11", "time is no number"),
        (Times("us", "date"), "978300760", "time in another form"),
        (Times("us", "date"), "2014-02-30", "time in another form"),
        (Times("s"), 0.5, "time has a fraction"),
        (Times("s"), "Infinity", "time is not finite"),
        (Times("s"), True, "time is no number"),
        (Times("s"), [5], "time is no number"),
        (Times("ns", given=True), "1" * 30, "time is too large"),
        (Times("s"), None, "time is missing"),
    ],
)
def test_what_is_not_as_the_first_rows_are(times: Times, value: Any, kind: str):
    with pytest.raises(BadValueError) as error:
        times.of(value)
    assert error.value.kind == kind
