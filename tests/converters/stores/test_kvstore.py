"""The files of an object store behave like those of a local directory."""

import numpy as np
import pytest

from converters.stores.kvstore import MIB
from converters.stores.local import LocalStore
from converters.stores.open import open_store
from converters.stores.protocol import MissingKeyError, StorageError, Store
from tests.converters.stores.servers import ObjectStore

NAMES = ["a", "dir/b", "dir/sub/c", "dir-2/d", "dir0", "p#24#i-1_0/x y", "100%25", "ü+&<>"]


@pytest.fixture
def store(remote: ObjectStore) -> Store:
    return open_store(f"{remote.bucket()}/some/place")


def test_names_sizes_and_contents(store: Store, remote: ObjectStore):
    for name in NAMES:
        store.write(name, name.encode())
    assert remote.objects(store.url) == {name: name.encode() for name in NAMES}
    assert store.keys() == sorted(NAMES)
    assert store.keys("dir") == ["dir/b", "dir/sub/c"]
    assert store.children("dir") == ["b", "sub/"]
    assert store.children() == ["100%25", "a", "dir-2/", "dir/", "dir0", "p#24#i-1_0/", "ü+&<>"]
    assert store.child("dir").keys() == ["b", "sub/c"]
    for name in NAMES:
        assert store.exists(name) and store.size(name) == len(name.encode())
        assert store.read(name) == name.encode()
    assert not store.exists("dir") and not store.exists("nothing")
    assert store.children("nothing") == store.keys("nothing") == []
    assert store.is_object_store and store.local_path("a") is None


def test_reads_in_ranges_as_from_a_local_file(store: Store, tmp_path):
    local = LocalStore(tmp_path)
    for place in (store, local):
        place.write("file", b"0123456789")
        place.write("empty", b"")
    for key in ("file", "empty"):
        for start in (0, 3, 9, 10, 12, 1 << 40):
            for stop in (None, 0, 3, 9, 10, 11, 1 << 41):
                expected = local.read(key, start, stop)
                assert store.read(key, start, stop) == expected, (key, start, stop)
    assert store.size("empty") == 0


@pytest.mark.parametrize("size", [MIB - 1, MIB, 8 * MIB + 3, 21 * MIB])
def test_size_where_the_server_does_not_tell_it(s3: ObjectStore, size: int, monkeypatch):
    import re

    import converters.stores.kvstore

    url = s3.bucket()
    s3.put(f"{url}/file", bytes(size))
    # Google's servers refuse a range past the end without giving the size.
    pattern = re.compile(r"value of size (\d+)|and total size (\d+)")
    monkeypatch.setattr(converters.stores.kvstore, "_SIZE", pattern)
    store = open_store(url)
    assert store.size("file") == size


def test_reads_a_large_file_piece_by_piece(store: Store, remote: ObjectStore):
    data = np.random.default_rng(0).bytes(3 * MIB + 17)
    store.write_blocks("large", (data[start : start + MIB] for start in range(0, len(data), MIB)))
    assert store.size("large") == len(data)
    pieces = [store.read("large", start, start + MIB) for start in range(0, len(data), MIB)]
    assert b"".join(pieces) == data


def test_deletes_a_tree_and_nothing_beside_it(store: Store, remote: ObjectStore):
    for name in NAMES:
        store.write(name, b"x")
    store.delete("dir")
    assert store.keys() == sorted(set(NAMES) - {"dir/b", "dir/sub/c"})
    store.delete("a")
    store.delete("nothing")
    assert not store.exists("a")
    store.child("dir-2").delete("")
    store.delete("")
    assert remote.objects(store.url) == {}


def test_missing_file(store: Store):
    for action in (store.read, store.size):
        with pytest.raises(
            MissingKeyError, match=f"^{store.url}/nothing: cannot read: no such file$"
        ):
            action("nothing")
    with pytest.raises(MissingKeyError):
        store.read("nothing", 3, 5)


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("s3://", "names no bucket; write s3://BUCKET/PATH"),
        ("gs:///x", "names no bucket"),
        (
            "ftp://host/x",
            "no storage for 'ftp://'; known are local paths, file://, gs:// and s3://",
        ),
    ],
)
def test_urls_that_name_no_place(url: str, cause: str):
    with pytest.raises(StorageError, match=cause):
        open_store(url)


def test_name_that_no_bucket_can_have(remote: ObjectStore):
    with pytest.raises(
        StorageError, match=r"UP\.\.PER/x: cannot list: .*[Ii]nvalid .* bucket name"
    ):
        open_store(f"{remote.scheme}://UP..PER/x").keys()
