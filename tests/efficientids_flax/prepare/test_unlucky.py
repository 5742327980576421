"""What files of other people hold, and what happens to machines: right, or told by file and row."""

import bz2
import gzip
import json
import lzma
import resource
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import CliRunner, Result

from efficientids_flax.commands.program import main
from efficientids_flax.prepare import PrepareOptions, prepare
from efficientids_flax.prepare.output import output
from tests.efficientids_flax.prepare.prepared import Written, read

HEADER = "user,item,rating,time\n"
ROWS = "".join(f"u{user},i{item},3,{10**9 + item}\n" for user in range(2) for item in range(3))
GOOD = HEADER + ROWS  # 7 lines
PAIRS = "user,item\na,b\n"
DATES = HEADER + "a,b,1,2014-10-11 03:34:02\na,c,1,2014-10-12\n"


def table(**columns: Any) -> pa.Table:
    return pa.table({"user": ["a", "a", "b"], "item": [1, 2, 3], **columns})


def written(place: Path, content: str | bytes | pa.Table) -> None:
    if isinstance(content, pa.Table):
        pq.write_table(content, place)
    else:
        place.write_bytes(content.encode() if isinstance(content, str) else content)


def call(place: Path, files: dict[str, Any], *arguments: str) -> Result:
    source = place / "source"
    source.mkdir()
    for name, content in files.items():
        written(source / name, content)
    sources = [source / name for name in files] if len(files) == 1 else [source]
    return CliRunner().invoke(
        main, ["prepare", *map(str, sources), "--out", str(place / "out"), *arguments]
    )


# fmt: off
REFUSED = {
    "a header inside": ({"a.csv": GOOD + GOOD}, "a.csv:8: header once more"),
    "a header inside, of ids alone": ({"a.csv": PAIRS + PAIRS}, "a.csv:3: header once more"),
    "a header inside of RecBole's": (
        {"a.inter": "user_id:token\titem_id:token\n1\t2\nuser_id:token\titem_id:token\n"},
        "a.inter:3: header once more"),
    "a stray quote over lines": (
        {"a.tsv": 'user\titem\n"a\tb\n"c\td\ne\tf\n'}, "a.tsv:2: quote is not closed"),
    "a row by its quotes": (
        {"a.csv": HEADER + 'a,"b\nc,d",1\n' + ROWS}, "by its quotes it goes on to line 3"),
    "gzip, by another name": ({"a.csv": gzip.compress(GOOD.encode())}, "a.csv: holds gzip data"),
    "bzip2": ({"a.csv": bz2.compress(GOOD.encode())}, "a.csv: holds bzip2 data"),
    "xz": ({"a.csv": lzma.compress(GOOD.encode())}, "a.csv: holds xz data"),
    "Zstandard": ({"a.csv": zstandard.compress(GOOD.encode())}, "a.csv: holds Zstandard data"),
    "gzip twice": ({"a.csv.gz": gzip.compress(gzip.compress(GOOD.encode()))}, "holds gzip data"),
    "no gzip": ({"a.csv.gz": GOOD}, "a.csv.gz: is damaged or not compressed so"),
    "cut gzip": ({"a.csv.gz": gzip.compress(GOOD.encode())[:-9]}, "a.csv.gz: ends early"),
    "a ZIP": ({"a.csv": b"PK\x03\x04\x14"}, "a.csv: is a ZIP archive"),
    "Parquet by another name": ({"a.csv": b"PAR1\x15\x04"}, "a.csv: holds Parquet data"),
    "no Parquet": ({"a.parquet": GOOD}, "a.parquet: is no whole Parquet file"),
    "UTF-16": ({"a.csv": GOOD.encode("utf-16-be")}, "a.csv: is UTF-16 and not UTF-8, as every"),
    "Latin-1": ({"a.csv": (GOOD + "caf\xe9,i,3,1000000000\n").encode("latin-1")},
                "a.csv:8: not UTF-8: 0xe9 at byte 4"),
    "carriage returns": ({"a.csv": GOOD.replace("\n", "\r")}, "end in carriage returns alone"),
    "zeros at the end": ({"a.csv": GOOD + "\0" * 9}, "a.csv:8: number of columns: found 1"),
    "another unit": ({"a.csv": GOOD, "b.csv": HEADER + "a,b,3,1588687728923\n"},
                     "b.csv:2: time in another unit"),
    "other times": ({"a.csv": GOOD, "b.csv": DATES}, "b.csv:2: time is no number"),
    "dates of a country": ({"a.csv": HEADER + "a,b,1,01/02/2020\n"},
                           "dates are read as ISO 8601 has them, 2014-10-11 or"),
    "other columns": ({"a.csv": GOOD, "b.csv": PAIRS}, "b.csv: has user, item, but a.csv has"),
    "a comma in a number": ({"a.csv": GOOD + 'a,b,"4,5",1000000000\n'}, "found '4,5'"),
    "no key": ({"a.jsonl": '{"user_id": "a", "item_id": "b"}\n{"user_id": "a"}\n'},
               "a.jsonl:2: item is missing"),
    "a year beyond": ({"a.parquet": table(time=pa.array([0, 1, 1 << 58], pa.timestamp("us")))},
                      "a.parquet:3: time in another form"),
    "a day beyond": ({"a.parquet": table(time=pa.array([0, 1, (1 << 31) - 1], pa.date32()))},
                     "a.parquet:3: time in another form"),
    "ids in ids": ({"a.parquet": table(user=[{"x": 1}] * 3)}, "ids are texts or whole numbers"),
}
# fmt: on


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_told_by_file_and_row_and_nothing_is_left(case: str, tmp_path: Path):
    files, said = REFUSED[case]
    result = call(tmp_path, files)
    assert result.exit_code == 1 and said in result.stderr, result.output
    assert [one.name for one in tmp_path.iterdir()] == ["source"]


IDS = ["007", "7", "1e3", "1000", " 12 ", "12", "a\0", 'x "y"', "user"]
TIMES = [-5, 0, 10**9, 9 * 10**9]


def test_ids_are_texts_and_times_may_be_early_and_late(tmp_path: Path):
    quoted = [f'"{one}"'.replace('x "y"', 'x ""y""') for one in IDS]
    rows = [f"{one},i,3,{TIMES[at % 4]}\r\n" for at, one in enumerate(quoted)]
    files = {"a.csv": ("\ufeff" + HEADER + "".join(rows) + "\r\n").encode()}
    result = call(tmp_path, files)
    said = f"before 1970 and in the future: -5 to {TIMES[-1]} seconds after 1970"
    assert result.exit_code == 0 and said in result.stdout, result.output
    got = read(tmp_path / "out")
    assert [one["id"] for one in got.users] == IDS
    assert [row["time"] for row in got.rows] == [TIMES[at % 4] for at in range(len(IDS))]


def test_files_with_their_columns_in_another_order(tmp_path: Path):
    other = "time,item,rating,user\n1000000007,i9,5,u0\n"
    got = _right(tmp_path, {"a.csv": GOOD, "b.csv": other})
    assert got.sequences()[0][-1] == ("i9", 10**9 + 7, 5.0, 2)


def test_files_of_the_parts_of_a_split_in_their_order_and_an_output_beside_them(tmp_path: Path):
    """By their names alone the test part comes before what is trained on."""
    for part, item in (("train", "b"), ("valid", "c"), ("test", "d")):
        rows = "user_id,parent_asin,rating\n" + "A,a,5\n" * (part == "train") + f"A,{item},5\n"
        (tmp_path / f"Books.{part}.csv").write_text(rows)
    named = sorted(map(str, tmp_path.glob("*.csv")))
    for out, sources in (("one", [str(tmp_path)]), ("two", named)):
        place = tmp_path / out
        result = CliRunner().invoke(main, ["prepare", *sources, "--out", str(place)])
        assert result.exit_code == 0, result.output
        assert [row[0] + str(row[-1]) for row in read(place).sequences()[0]] == [
            "a0", "b0", "c1", "d2",
        ]  # fmt: skip
        assert "is that of time: Books.train.csv, Books.valid.csv, Books.test.csv" in result.stdout
        assert "named after are read as one, and split anew" in result.stdout
        assert "not read" not in result.stdout


def test_dates_without_hyphens_are_remarked(tmp_path: Path):
    rows = "".join(f"u,i{day},3,201410{day}\n" for day in range(10, 15))
    result = call(tmp_path, {"a.csv": HEADER + rows})
    assert "times such as 20141010 are read as seconds after 1970; if they" in result.stdout


def test_dates_decimals_and_texts_over_lines(tmp_path: Path):
    decimal = [Decimal("1000000000.5"), Decimal(10**9), Decimal(2)]
    other = table(time=pa.array([0, 1, 1 << 60], pa.timestamp("us")), title=["a\nb\tc", None, "d"])
    wanted = {"dates": ([1412998442, 1413072000], {"a.csv": DATES}),
              "decimal": ([10**9 * 10**6, 1000000000500000, 2 * 10**6],
                          {"a.parquet": table(time=decimal, born=other["time"])})}  # fmt: skip
    for name, (times, files) in wanted.items():
        (tmp_path / name).mkdir()
        assert [row["time"] for row in _right(tmp_path / name, files).rows] == times
    (tmp_path / "texts").mkdir()
    got = _right(tmp_path / "texts", {"a.parquet": other.drop(["time"])}, "--title", "title")
    assert [one["title"] for one in got.items] == ["a\nb\tc", None, "d"]


def _right(place: Path, files: dict[str, Any], *arguments: str) -> Written:
    result = call(place, files, *arguments)
    assert result.exit_code == 0, result.output
    return read(place / "out")


def test_a_file_that_is_written_to_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = tmp_path / "a.csv"
    source.write_text(GOOD)
    from efficientids_flax.prepare import stage

    def times_of(*given: Any) -> Any:
        with source.open("a") as file:
            file.write("u9,i1,3,1000000000\n")
        return found(*given)

    found = stage.times_of
    monkeypatch.setattr(stage, "times_of", times_of)
    with pytest.raises(ValueError, match=r"a.csv: was changed while it was read"):
        prepare(source, tmp_path / "out", PrepareOptions())
    assert [one.name for one in tmp_path.iterdir()] == ["a.csv"]


def test_a_disk_that_fills_up(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        source = "user,item\n" + "".join(f"user {one},item {one}\n" for one in range(9))
        (tmp_path / "source").mkdir()
        for at in range(9):
            (tmp_path / "source" / f"{at}.csv").write_text(source[:150].rpartition("\n")[0])
        result = CliRunner().invoke(
            main, ["prepare", str(tmp_path / "source"), "--out", str(tmp_path / "out")]
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, heard)
    assert result.exit_code == 1 and "out: file too large; nothing of it is left" in result.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["source"]


KILLED = """
import os, signal, sys
from efficientids_flax.prepare.output import output
with output(sys.argv[1], overwrite=False) as (place, scratch):
    (place / "half").write_text("a")
    os.kill(os.getpid(), signal.Signals[sys.argv[2]])
"""


def test_what_a_killed_run_left_is_removed_by_the_next_one(tmp_path: Path):
    out = tmp_path / "out"
    for name, left in (("SIGTERM", 0), ("SIGKILL", 2)):
        ended = subprocess.run([sys.executable, "-c", KILLED, str(out), name], check=False)
        assert ended.returncode == (143 if name == "SIGTERM" else -9)
        assert len(list(tmp_path.iterdir())) == left
    with output(out, overwrite=False) as (place, scratch):
        assert sorted(tmp_path.iterdir()) == [place, scratch]
        with output(out, overwrite=False) as others:  # of a run that is not over
            assert len(list(tmp_path.iterdir())) == 4
            (others[0] / "manifest.json").write_text(json.dumps({"format": "efficientids-data"}))
        assert place.exists() and scratch.exists()
        (out / "manifest.json").unlink()
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
