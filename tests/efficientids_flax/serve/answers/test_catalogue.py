"""Items by their ids: of a model's own file, of a prepared directory, or by their numbers."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efficientids_flax.serve.answers import Catalogue, read_catalogue
from efficientids_flax.stored import ItemNames


def parquet(place: Path, **changes: object) -> str:
    columns = {"item": [0, 1, 2], "id": ["a", "5", "c"], "title": ["A", None, "C"]} | changes
    pq.write_table(
        pa.table({name: values for name, values in columns.items() if values is not None}),
        place / "items.parquet",
    )
    return str(place / "items.parquet")


def test_without_names_items_go_by_their_numbers():
    found = Catalogue(3, None)
    assert [found.row(item) for item in (0, 2, 3, -1, "0", True)] == [0, 2, None, None, None, None]
    assert found.missing(3) == "3: expected a number in [0, 3)"
    assert (found.id(1), found.title(1), found.digest()) == (1, None, None)


def test_an_item_without_an_id_goes_by_its_number():
    found = Catalogue(3, ItemNames(("a", None, 7), (None, "B", None)))
    assert [found.row(item) for item in ("a", 1, 7, 0, "7")] == [0, 1, 2, None, None]
    assert found.missing("7").endswith("(there is 7, a number)")
    assert found.title(1) == "B"


def test_of_a_prepared_directory(tmp_path: Path):
    file = parquet(tmp_path)
    for given in (file, str(tmp_path)):
        found = read_catalogue(3, "model", given)
        assert [found.row(item) for item in ("a", "5", "c", 5)] == [0, 1, 2, None]
        assert found.missing(5) == (
            '5: no item of the catalogue has this id (there is "5", a text)'
        )
        assert [found.title(row) for row in range(3)] == ["A", None, "C"]
    assert read_catalogue(3, "model", parquet(tmp_path, title=None)).title(0) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"id": None}, "has no column id, found item, title"),
        ({"item": [0, 2, 1]}, "column item: expected 0, 1, 2"),
        ({"id": ["a", None, "c"]}, "column id: found None, expected texts"),
        ({"id": ["a", "a", "c"]}, "ids of several items: 'a'"),
        ({"item": [0], "id": ["a"], "title": ["A"]}, "found 1 items, the model has 3"),
    ],
)
def test_what_is_no_catalogue_is_named(tmp_path: Path, changes: dict[str, object], told: str):
    file = parquet(tmp_path, **changes)
    with pytest.raises(ValueError, match=told) as error:
        read_catalogue(3, "model", file)
    assert str(error.value).startswith(file)


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"has neither items\.parquet nor items\.jsonl"):
        read_catalogue(3, "model", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_catalogue(3, "model", str(tmp_path / "x.parquet"))
    (tmp_path / "x.parquet").write_text("x")
    with pytest.raises(ValueError, match="is no parquet file"):
        read_catalogue(3, "model", str(tmp_path / "x.parquet"))
    (tmp_path / "x.csv").write_text("x")
    with pytest.raises(ValueError, match=r"expected a file of the name items\.jsonl"):
        read_catalogue(3, "model", str(tmp_path / "x.csv"))
