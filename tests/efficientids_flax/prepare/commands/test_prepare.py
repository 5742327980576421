"""The command: what it prints, what it refuses, and that it never leaves half an output."""

import gzip
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from efficientids_flax.commands.program import main

TABLE = "user,item,rating,time\n" + "".join(
    f"{user},{item},{1 + item % 5},{item * 7 % 11}\n"
    for user in range(3)
    for item in range(user, 6)
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


def test_what_it_prints(table: Path, tmp_path: Path):
    out = tmp_path / "out"
    result = call(table, "--out", out, "--min-rating", 2, "--k-core", 2)
    assert result.exit_code == 0, result.output
    said = {line.rsplit("  ", 1)[0].strip(): line.rsplit("  ", 1)[1] for line in
            result.stdout.splitlines()}  # fmt: skip
    assert said["layout"] == "table" and said["times"] == "seconds"
    assert said["rows read"] == "15" and said["below the minimum rating"] == "4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "table.csv"]


def test_json_and_quiet(table: Path, tmp_path: Path):
    found = json.loads(call(table, "--out", tmp_path / "a", "--json").stdout)
    rows = found["rows"]
    assert rows["read"] == rows["kept"] == found["counts"]["interactions"] == 15
    assert found["out"] == str(tmp_path / "a")
    assert call(table, "--out", tmp_path / "b", "-q").output == ""


def test_overwrite_replaces_what_it_made_and_nothing_else(table: Path, tmp_path: Path):
    out = tmp_path / "out"
    assert call(table, "--out", out).exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    again = call(table, "--out", out)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "is there; give --overwrite to replace it" in again.stderr
    assert call(table, "--out", out, "--overwrite").exit_code == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    refused = call(table, "--out", mine, "--overwrite")
    assert refused.exit_code == 1 and "was not made by prepare" in refused.stderr
    assert (mine / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--split", "time"], "needs --test-from or --test-fraction"),
        (["--test-from", "5"], "go with the split by time"),
        (["--split", "time", "--test-fraction", "1.5"], "expected shares between 0 and 1"),
        (["--split", "time", "--test-fraction", ".1", "--valid-from", "3"], "exclude fractions"),
        (["--split", "time", "--test-fraction", ".1", "--no-time"], "--no-time leaves out"),
        (["--layout", "movielens"], "expected one of movielens-100k, movielens-dat"),
        (["--items-id", "x"], "--items-id goes with --items"),
        (["--no-time", "--time", "t"], "--time and --no-time exclude each other"),
        (["--encoding", "klingon"], "which Python does not know"),
        (["--memory", "1MiB"], "expected at least"),
    ],
)
def test_bad_usage(arguments: list[str], said: str, table: Path, tmp_path: Path):
    result = call(table, "--out", tmp_path / "out", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def cut(data: bytes) -> bytes:
    return gzip.compress(data * 50)[:-9]


@pytest.mark.parametrize(
    ("name", "data", "arguments", "said"),
    [
        ("x.csv", b"", [], "x.csv: is empty"),
        ("x.csv", b"user,item\n", [], "x.csv: holds no interactions"),
        ("x.csv", b"user,item\n,\n", ["--max-bad", "5"], "x.csv: holds no interactions"),
        ("x.csv.gz", cut(TABLE.encode()), [], "x.csv.gz: ends early, the compressed data is cut"),
        ("x.csv", TABLE.encode("utf-16"), [], "x.csv: is UTF-16 and not UTF-8; give --encoding"),
        ("x.csv", b"user,item\na,b\nc\nd\n", ["--max-bad", "1"],
         "2 malformed rows up to here (2 number of columns), 1 are allowed:"),
        ("x.csv", b"user,item\na,caf\xe9\n", [], "x.csv:2: not UTF-8: 0xe9 at byte 6 of the line"),
        ("x.csv", b"user,item\na,b\n", ["--min-rating", "3"], "has no ratings for --min-rating"),
        ("x.csv", b"user,item\na,b\n", ["--split", "time", "--test-from", "3"], "has no times to"),
        ("x.csv", b"user,item,rating\na,b,1\n", ["--min-rating", "3"],
         "--min-rating: none of 1 rows has 3.0 or more"),
        ("x.csv", b"user,item\na,b\n", ["--k-core", "2"], "nothing is left of 1 interactions"),
        ("x.csv", b"user,item,time\na,b,1\n", ["--split", "time", "--test-from", "soon"],
         "'soon' is neither a date such as 2014-10-11 nor a whole number"),
        ("x.csv", b"user,item,item\na,b,c\n", [], "x.csv: has two columns 'item'"),
        ("x.parquet", b"PAR1", ["--user", "u", "--item", "i"], "is no whole Parquet file"),
        ("x.dat", b"a b\n", ["--user", "u", "--item", "i"], "x.dat: has no column for user: u"),
        ("x.bin", b"a b\n", ["--user", "u", "--item", "i"], "its format does not follow"),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_leaves_nothing(
    name: str, data: bytes, arguments: list[str], said: str, tmp_path: Path
):
    (tmp_path / name).write_bytes(data)
    result = call(tmp_path / name, "--out", tmp_path / "out", *arguments)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_part_without_rows_is_told(tmp_path: Path):
    source = tmp_path / "x.csv"
    source.write_text("user,item,time\na,b,1\na,c,2\nb,c,3\n")
    late = ["--split", "time", "--test-from", "2030-01-01"]
    for arguments, parts in (([], ["test", "valid"]), (late, ["test"])):
        found = json.loads(call(source, "--out", tmp_path / "out", "--json", "--overwrite",
                                *arguments).stdout)  # fmt: skip
        assert found["remarks"] == [f"no row is in the {part} part" for part in parts]


def test_malformed_rows_that_are_allowed_are_counted_by_kind(tmp_path: Path):
    source = tmp_path / "x.csv"
    source.write_text("user,item,rating\na,b,1\na,c\na,d,bad\n,e,2\na,f,nan\na,g,3\n")
    result = call(source, "--out", tmp_path / "out", "--max-bad", 4, "--json")
    found = json.loads(result.stdout)
    assert found["rows"]["malformed"] == {
        "number of columns": 1, "rating is no number": 1, "rating is not finite": 1,
        "user is missing": 1,
    }  # fmt: skip
    assert found["rows"]["read"] == 6 and found["rows"]["kept"] == 2
    assert f"first {source}:3: number of columns: found 2, expected 3" in found["remarks"][-1]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"] == found["rows"]
