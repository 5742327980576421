"""From a table of interactions to a directory: against plain Python, on rows of any kind."""

import hashlib
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.prepare import PrepareOptions, prepare
from efficientids_flax.prepare.stage import stage
from tests.efficientids_flax.prepare.prepared import run
from tests.efficientids_flax.prepare.reference import Row, expected

ROWS = st.lists(
    st.builds(
        Row,
        user=st.sampled_from(["7", "07", "u x", "ü"]),
        item=st.sampled_from(["1", "01", "b", "B", "€"]),
        rating=st.sampled_from([1.0, 2.5, 4.0]),
        time=st.integers(0, 6),
    ),
    min_size=1, max_size=60,
)  # fmt: skip
POINTS = st.tuples(st.integers(1, 3), st.integers(4, 6))


def written(rows: list[Row], place: Path) -> Path:
    file = place / "rows.csv"
    lines = [f"{row.user},{row.item},{row.rating},{row.time}\n" for row in rows]
    file.write_text("user,item,rating,time\n" + "".join(lines))
    return file


# In one block, and in many, of which none holds all ids.
READING = st.sampled_from([{}, {"size": 50, "most_ids": 2}])
DUPLICATES = st.sampled_from(["keep-first", "keep-last", "all"])


def compare(rows: list[Row], reading: dict[str, int], **options: Any) -> None:
    """Equal to the reference; or both say that nothing is left."""
    want = expected(rows, **options)
    points: dict[str, Any] = {
        name: str(options.pop(name)) for name in ("valid_from", "test_from") if name in options
    }
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("efficientids_flax.prepare.run.stage", partial(stage, **reading))
        place = Path(folder)
        source = written(rows, place)
        try:
            got = run(source, place / "out", shard_rows=7, **options, **points)
        except ValueError as error:
            assert "none of" in str(error) or "nothing is left" in str(error)
            assert want.counts["train"] == 0
            return
        assert [one["id"] for one in got.users] == want.users
        assert got.ids == want.items
        assert got.sequences() == want.sequences
        counts = got.manifest["counts"]
        assert {name: counts[name] for name in want.counts} == want.counts
        assert [one["count"] for one in got.users] == list(map(len, want.sequences))
        trained = [item for own in want.sequences for item, _, _, part in own if part == 0]
        assert [one["count"] for one in got.items] == [trained.count(item) for item in want.items]
        assert [one["cold"] for one in got.items] == [item not in trained for item in want.items]
        told = got.manifest["rows"]
        assert (
            told["read"]
            == len(rows)
            == sum(told[name] for name in ("below_min_rating", "duplicates", "k_core", "kept"))
        )
        users = [shard["users"] for shard in got.manifest["shards"]]
        assert all(one[1] < other[0] for one, other in pairwise(users))


@settings(max_examples=9)
@given(ROWS, READING, DUPLICATES, st.sampled_from([None, 2.5]))
def test_leave_one_out(
    rows: list[Row], reading: dict[str, int], duplicates: str, min_rating: float | None
):
    compare(rows, reading, duplicates=duplicates, min_rating=min_rating)


@settings(max_examples=9)
@given(ROWS, READING, DUPLICATES, st.integers(1, 3), st.integers(1, 3))
def test_k_core(
    rows: list[Row], reading: dict[str, int], duplicates: str, min_user: int, min_item: int
):
    compare(rows, reading, duplicates=duplicates, min_user=min_user, min_item=min_item)


@settings(max_examples=9)
@given(ROWS, READING, DUPLICATES, POINTS, st.integers(1, 3))
def test_split_by_time(
    rows: list[Row], reading: dict[str, int], duplicates: str, points: tuple[int, int], least: int
):
    compare(rows, reading, duplicates=duplicates, split="time", valid_from=points[0],
            test_from=points[1], min_user=least, min_item=least)  # fmt: skip


def test_shares_of_a_split_by_time(tmp_path: Path):
    """Of 20 interactions the last 4 are the test, the 6 before validate, but for equal times."""
    times = [*range(9), 9, 9, 11, 12, 13, 14, 15, 15, 15, 15, 19]
    rows = [Row(f"u{at % 3}", f"i{at}", 1.0, time) for at, time in enumerate(times)][::-1]
    rows.append(Row("u0", "i0", 1.0, 30))  # once more, and not kept
    got = run(written(rows, tmp_path), tmp_path / "out", split="time", valid_fraction=0.3,
              test_fraction=0.2)  # fmt: skip
    assert got.manifest["split"] == {"rule": "time", "valid_from": 9, "test_from": 15}
    assert [got.manifest["counts"][part] for part in ("train", "valid", "test")] == [9, 6, 5]


def test_shares_are_taken_as_they_are_written(tmp_path: Path):
    """In float64 10 * (1 - 0.9) is below 1, and 10 * (1 - (0.2 + 0.6)) below 2."""
    source = written([Row(f"u{at}", "i", 1.0, at) for at in range(10)], tmp_path)
    for valid, test, wanted in ((None, 0.9, [1, 0, 9]), (0.6, 0.2, [2, 6, 2])):
        got = run(source, tmp_path / f"{test}", split="time", valid_fraction=valid,
                  test_fraction=test)  # fmt: skip
        assert [got.manifest["counts"][part] for part in ("train", "valid", "test")] == wanted


def test_a_source_with_its_users_in_turn_gives_what_an_engine_sorts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = [
        Row(f"u{user}", f"i{at * 5 % 8}", at % 3 + 0.1, at * 7 % 5)
        for user in (3, 1, 2) for at in range(9 + user)
    ]  # fmt: skip
    source, seen = written(rows, tmp_path), []

    def watched(*given: Any, **told: Any) -> Any:
        seen.append(stage(*given, **told, size=100))
        seen[-1].in_turn = seen[-1].in_turn and not sorting
        return seen[-1]

    monkeypatch.setattr("efficientids_flax.prepare.run.stage", watched)
    for sorting in (False, True):
        run(source, tmp_path / f"{sorting}", shard_rows=20)
    assert [one.in_turn for one in seen] == [True, False]
    for file in (tmp_path / "True").iterdir():
        assert file.read_bytes() == (tmp_path / "False" / file.name).read_bytes()


def test_the_digests_are_those_of_the_files_and_of_the_ids(tmp_path: Path):
    rows = [Row("a", "x", 1.0, 3), Row("a", "y", 2.0, 1), Row("b", "ü", 3.0, 2)]
    got = run(written(rows, tmp_path), tmp_path / "out")
    digests = dict(got.manifest["digests"])
    assert digests.pop("catalogue") == hashlib.sha256("x\ny\nü\n".encode()).hexdigest()
    assert digests == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "out").iterdir() if path.name != "manifest.json"
    }  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows.csv"]


def test_nothing_is_there_after_an_error(tmp_path: Path):
    source = written([Row("a", "x", 1.0, 3)], tmp_path)
    with source.open("a") as file:
        file.write("a,y,3\n")
    with pytest.raises(ValueError, match=r"rows.csv:3: number of columns: found 3, expected 4"):
        prepare(source, tmp_path / "out", PrepareOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
