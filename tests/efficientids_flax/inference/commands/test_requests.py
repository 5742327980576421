"""Files of histories as people's programs write them."""

from pathlib import Path
from typing import Any

import pytest

from efficientids_flax.inference.commands.requests import read_requests


@pytest.mark.parametrize(
    "content",
    [
        b"1,2\n\n3\n",
        b"1,2\r\n\r\n3",
        b"\xef\xbb\xbf1,2\n \n[3]\n",
        b'\xef\xbb\xbf{"items":[1,2]}\r\n\n3',
    ],
)
def test_blank_lines_and_other_ends_and_marks(tmp_path: Path, content: bytes):
    (tmp_path / "asked").write_bytes(content)
    raw: Any = None  # nothing is asked of it
    found = [*read_requests(str(tmp_path / "asked"), raw)]
    assert [request.ids for request in found] == [[1, 2], [3]]
    assert [request.where.rpartition(":")[2] for request in found] == ["1", "3"]


def test_another_encoding_is_named_with_its_line(tmp_path: Path):
    (tmp_path / "asked").write_bytes(b"1,2\n3,\xe9\n")
    raw: Any = None
    with pytest.raises(ValueError, match=r"asked:2: is not UTF-8: .*0xe9"):
        list(read_requests(str(tmp_path / "asked"), raw))
