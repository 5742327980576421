"""Words for frequencies, and the dates that follow: against dates that a calendar shows."""

import numpy as np
import pytest

from efficientids_flax.forecast import dates_ahead, read_frequency


@pytest.mark.parametrize(
    ("words", "kind"),
    [("D d B H h 15min T 30S 2D", 0), ("W W-SUN M ME MS 2W", 1), ("Q QS QE-DEC Y YS YE A 3YE", 2)],
)
def test_kinds(words: str, kind: int):
    assert {read_frequency(word).kind for word in words.split()} == {kind}


@pytest.mark.parametrize("word", ["", "X", "DD", "-1D", "0D", "fortnightly"])
def test_words_that_are_none(word: str):
    with pytest.raises(ValueError, match="freq: "):
        read_frequency(word)


@pytest.mark.parametrize(
    ("word", "last", "ahead"),
    [("D", "2024-02-28", ["2024-02-29", "2024-03-01"]),
     ("B", "2024-03-01", ["2024-03-04", "2024-03-05"]),
     ("W", "2024-01-07", ["2024-01-14", "2024-01-21"]),
     ("MS", "2023-12-01", ["2024-01-01", "2024-02-01"]),
     ("M", "2024-01-31", ["2024-02-29", "2024-03-31"]),
     ("MS", "2024-01-31", ["2024-02-29", "2024-03-31"]),
     ("Q", "2023-12-31", ["2024-03-31", "2024-06-30"]),
     ("QS", "2023-10-01", ["2024-01-01", "2024-04-01"]),
     ("Y", "2023-12-31", ["2024-12-31", "2025-12-31"]),
     ("YS", "2023-01-01", ["2024-01-01", "2025-01-01"]),
     ("H", "2024-01-01T23", ["2024-01-02T00", "2024-01-02T01"]),
     ("15min", "2024-01-01T23:45", ["2024-01-02T00:00", "2024-01-02T00:15"])],
)  # fmt: skip
def test_dates_that_follow(word: str, last: str, ahead: list[str]):
    found = dates_ahead(np.datetime64(last), read_frequency(word), 2)
    np.testing.assert_array_equal(found, np.asarray(ahead, "datetime64[m]"))
