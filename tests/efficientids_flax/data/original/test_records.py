"""TFRecord files: against another writer's, and damaged in every byte."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.data.original import RecordError, read_records
from tests.efficientids_flax.data.sequences import COMPRESSED, write_records

RECORDS = [b"first", b"", bytes(range(256)) * 3, b"last"]


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_reads_what_another_writer_wrote(suffix: str, tmp_path: Path):
    found = list(read_records(write_records(tmp_path / f"train.tfrecord{suffix}", RECORDS)))
    assert [one.data for one in found] == RECORDS
    assert [one.number for one in found] == [0, 1, 2, 3]
    sizes = [16 + len(record) for record in RECORDS]
    assert [one.offset for one in found] == [sum(sizes[:number]) for number in range(4)]


def test_several_streams_and_none(tmp_path: Path):
    """As `cat a.gz b.gz` makes them."""
    file = write_records(tmp_path / "a.gz", RECORDS)
    file.write_bytes(file.read_bytes() * 2)
    assert [one.data for one in read_records(file)] == RECORDS * 2
    (tmp_path / "empty").touch()
    assert not list(read_records(tmp_path / "empty"))


@settings(deadline=None, max_examples=150, derandomize=True)
@given(data=st.data(), suffix=st.sampled_from(sorted(COMPRESSED)))
def test_no_damage_passes(tmp_path_factory, data, suffix: str):
    """Whatever bit turns or byte is missing: an error that names the file, or what was there."""
    root = tmp_path_factory.getbasetemp()
    file = write_records(root / f"damaged{suffix}", RECORDS)
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    file.write_bytes(content)
    try:
        found = [one.data for one in read_records(file)]
    except RecordError as error:
        assert str(file) in str(error)
        return
    # A header of gzip has bytes that mean nothing; a file may end behind a record.
    assert found == RECORDS[: len(found)]
    assert suffix or found != RECORDS


def test_what_is_wrong_is_named_with_its_place(tmp_path: Path):
    file = write_records(tmp_path / "train.tfrecord", RECORDS)
    content = file.read_bytes()
    for damaged, message in (
        (content[:25], r"record 1 at byte 21: is cut off in its length"),
        (content[:50], r"record 2 at byte 37: is cut off: 1 of 772 bytes are there; copy the"),
        (
            b"\1" + content[1:],
            "record 0 at byte 0: the checksum of its length differs: it is damaged;",
        ),
        (
            content.replace(b"last", b"lost"),
            "record 3 at byte 821: the checksum of its data differs",
        ),
        (b"user,item\n", "record 0 at byte 0: is cut off in its length"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(RecordError, match=f"train.tfrecord: {message}"):
            list(read_records(file))
    file = write_records(tmp_path / "train.gz", RECORDS)
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(RecordError, match=r"train.gz: is compressed, and cut off behind byte \d+"):
        list(read_records(file))
