"""Sizes, tables and metrics as text."""

import pytest

from efficientids_flax.text import in_a_line, metrics_text, readable, size_text, table


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (1_500_000, "1.50 MB"), (2e9, "2.00 GB"),
     (3.25e12, "3.25 TB"), (4e16, "40000.00 TB")],
)  # fmt: skip
def test_sizes(nbytes: float, text: str):
    assert size_text(nbytes) == text


def test_columns_are_as_wide_as_they_need():
    assert table([("a", "bb"), ("ccc", "d")]) == "a    bb\nccc  d"
    assert table([]) == ""


def test_metrics_stand_one_below_the_other():
    assert metrics_text({"steps": 4, "eval_loss": 3.14159265}) == "steps      4\neval_loss  3.14159"
    assert metrics_text({}) == ""


def test_messages_command_no_terminal():
    assert readable("a\x1b[2J\nb\t\x00") == "a\\x1b[2J\nb\t\\x00"
    assert readable("x" * 20, 5) == "xxxxx ... and 15 more characters"
    assert readable("xxxxx", 5) == "xxxxx"


def test_pages_become_a_line():
    page = "OUT_OF_RANGE: Error writing file: Disk quota exceeded [source locations='a\nb']\nmore"
    assert in_a_line(ValueError(page)) == "OUT_OF_RANGE: Error writing file: Disk quota exceeded"
    line = in_a_line(ValueError("what " + "x" * 999 + " No space left on device"))
    assert line.startswith("what")
    assert line.endswith("No space left on device")
    assert len(line) < 300
