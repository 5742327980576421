"""What items are called, on disk and back."""

from pathlib import Path

import pytest

from efficientids_flax.stored.item_names import ItemNames, read_item_names, write_item_names


def test_titles_may_hold_what_ends_lines_elsewhere(tmp_path: Path):
    titles = ("a\u2028b", "a\x85b", "a\u2029b\x0c", "two\nlines\r", None, "")
    names = ItemNames(tuple(map(str, range(6))), titles)
    write_item_names(tmp_path, names)
    assert read_item_names(tmp_path) == names


@pytest.mark.parametrize("text", ["", "{}", "[]", "nothing"])
def test_what_is_no_name_is_told_by_its_line(text: str, tmp_path: Path):
    (tmp_path / "items.jsonl").write_text(f'{{"id": "a"}}\n{text}\n')
    with pytest.raises(ValueError, match=r"items.jsonl:2: "):
        read_item_names(tmp_path)
