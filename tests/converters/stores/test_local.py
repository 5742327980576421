"""Local directories: whatever a file system does, the error is one line that names the file."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converters.stores.local import LocalStore
from converters.stores.open import open_ocdbt, open_store
from converters.stores.protocol import MissingKeyError, StorageError


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    found = LocalStore(tmp_path / "place")
    for name in ("a", "dir/b", "dir/sub/c", "p#24#i-1/100%25", "dir-2/d"):
        found.write(name, name.encode())
    return found


def refuse(patch: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> None:
    """Let an operation on files fail; root, who may run the tests, would be allowed everything."""

    def fail(*arguments: Any, **options: Any):
        raise OSError(number, os.strerror(number))

    patch.setattr(owner, name, fail)


def test_names(store: LocalStore):
    assert store.keys() == ["a", "dir-2/d", "dir/b", "dir/sub/c", "p#24#i-1/100%25"]
    assert store.children() == ["a", "dir-2/", "dir/", "p#24#i-1/"]
    assert store.keys("dir/") == store.keys("/dir") == ["dir/b", "dir/sub/c"]
    assert store.children("nothing") == store.keys("nothing") == store.children("a") == []
    assert store.child("dir").children() == ["b", "sub/"]
    assert store.exists("a") and not store.exists("dir") and not store.exists("a/below")
    assert store.read("p#24#i-1/100%25") == b"p#24#i-1/100%25"
    assert list(store.read_many(["a", "dir/b"])) == [b"a", b"dir/b"]
    assert store.kvstore("p#24#i-1") == {"driver": "file", "path": f"{store.url}/p#24#i-1/"}


def test_paths_and_file_urls_are_the_same_place(store: LocalStore):
    for url in (store.url, Path(store.url), f"file://{store.url}"):
        assert open_store(url).keys() == store.keys()
        assert open_store(url).url == store.url


@pytest.mark.parametrize("key", ["..", "../x", "dir/../../x", "a\0b"])
def test_names_that_leave_the_directory_are_refused(store: LocalStore, key: str):
    for action in (store.read, store.size, store.exists, store.keys, store.delete, store.child):
        with pytest.raises(StorageError, match="is no name of a file in it"):
            action(key)
    with pytest.raises(StorageError, match="is no name of a file in it"):
        store.write(key, b"")


def test_missing_files(store: LocalStore):
    for action in (store.read, store.size):
        with pytest.raises(MissingKeyError, match=r"place/x: cannot read: No such file"):
            action("x")
    store.delete("x")


def test_links_are_followed(store: LocalStore, tmp_path: Path):
    (tmp_path / "place/link").symlink_to("dir")
    (tmp_path / "place/file").symlink_to("a")
    assert store.children() == ["a", "dir-2/", "dir/", "file", "link/", "p#24#i-1/"]
    assert "link/sub/c" in set(store.keys())
    assert store.read("file") == b"a" and store.size("link/b") == 5
    store.delete("link")
    assert store.exists("dir/b") and not (tmp_path / "place/link").is_symlink()


def test_broken_link(store: LocalStore, tmp_path: Path):
    (tmp_path / "place/broken").symlink_to("gone")
    assert "broken" in store.children()
    assert not store.exists("broken")
    with pytest.raises(MissingKeyError, match=r"broken: .*No such file .*\(a link to gone\)"):
        store.read("broken")
    store.delete("broken")
    assert "broken" not in store.children()


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_link_that_leads_back(store: LocalStore, tmp_path: Path, target: str):
    (tmp_path / "place/dir/link").symlink_to(target)
    with pytest.raises(StorageError, match="place/dir/link: cannot list: a link to a directory it"):
        store.keys()


def test_link_to_itself(store: LocalStore, tmp_path: Path):
    (tmp_path / "place/self").symlink_to("self")
    with pytest.raises(StorageError, match=r"self: cannot read: .*symbolic links"):
        store.exists("self")


def test_directory_where_a_file_is_wanted(store: LocalStore):
    with pytest.raises(StorageError, match=r"place/dir: cannot read: Is a directory"):
        store.read("dir")
    with pytest.raises(StorageError, match=r"place/dir: cannot write: Is a directory"):
        store.write("dir", b"")
    with pytest.raises(StorageError, match=r"place/a/x: cannot write: Not a directory"):
        store.write("a/x", b"")
    assert store.keys() == LocalStore(Path(store.url)).keys()
    assert not list(Path(store.url).rglob("*.tmp"))


@pytest.mark.parametrize(
    ("owner", "name", "call", "verb"),
    [
        (Path, "open", lambda store: store.read("a"), "read"),
        (Path, "open", lambda store: list(store.blocks("a")), "read"),
        (Path, "stat", lambda store: store.size("a"), "read"),
        (Path, "stat", lambda store: store.exists("a"), "read"),
        (os, "scandir", lambda store: store.children(), "list"),
        (os, "scandir", lambda store: store.keys(), "list"),
        (Path, "mkdir", lambda store: store.write("new/a", b""), "write"),
        (Path, "replace", lambda store: store.write("a", b""), "write"),
        (Path, "unlink", lambda store: store.delete("a"), "delete"),
    ],
)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_the_system_refuses(
    store: LocalStore,
    owner: Any,
    name: str,
    call: Callable[[LocalStore], Any],
    verb: str,
    number: int,
):
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, owner, name, number)
        with pytest.raises(StorageError, match=f": cannot {verb}: {os.strerror(number)}$"):
            call(store)


def test_names_as_long_as_they_may_be(store: LocalStore):
    longest = "x" * 255
    store.write(f"{longest}/{longest}", b"data")
    assert store.read(f"{longest}/{longest}") == b"data"
    for action in (store.read, store.size, store.exists, lambda key: store.write(key, b"")):
        with pytest.raises(StorageError, match=r"File name too long \(256 bytes in one name\)$"):
            action("dir/" + "x" * 256)


def test_files_that_vanish_while_a_tree_is_removed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
):
    rmtree, calls = shutil.rmtree, 0

    def vanishing(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (path / "b").unlink()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{path}/b")
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", vanishing)
    store.delete("dir")
    assert calls == 2 and store.children() == ["a", "dir-2/", "p#24#i-1/"]


def test_a_reader_never_sees_half_a_file(store: LocalStore):
    def blocks():
        yield b"new"
        assert store.read("a") == b"a"
        assert store.keys("empty") == []
        yield b" content"

    store.write_blocks("a", blocks())
    assert store.read("a") == b"new content"


def test_failed_write_leaves_the_old_file(store: LocalStore):
    def blocks():
        yield b"new"
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match="place/a: cannot write: No space left"):
        store.write_blocks("a", blocks())
    assert store.read("a") == b"a" and store.children() == ["a", "dir-2/", "dir/", "p#24#i-1/"]


def test_inside_of_an_ocdbt_database(tmp_path: Path):
    import tensorstore as ts

    base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{tmp_path}/db#1/"}}
    written = ts.KvStore.open(base).result()
    large = bytes(range(256)) * 4096
    for key, value in {"w/0.0": large, "w/.zarray": b"{}", "v/0": b"", "w#2/x": b"1"}.items():
        written.write(key, value).result()
    store = open_ocdbt(LocalStore(tmp_path), "db#1")
    assert store.keys() == ["v/0", "w#2/x", "w/.zarray", "w/0.0"]
    assert store.children() == ["v/", "w#2/", "w/"] and store.children("w") == [".zarray", "0.0"]
    assert store.size("w/0.0") == len(large) and store.size("v/0") == 0
    assert store.read("w/0.0", 5, 300) == large[5:300]
    assert store.read("w/.zarray", 1, 9) == b"}" and store.read("v/0", 3) == b""
    assert b"".join(store.blocks("w/0.0")) == large
    assert not store.is_object_store and store.local_path() is None
    with pytest.raises(MissingKeyError, match=r"db#1/w/1: cannot read: no such file"):
        store.read("w/1")
    with pytest.raises(MissingKeyError):
        store.size("w")


def test_cut_off_file_of_an_ocdbt_database_is_no_short_value(tmp_path: Path):
    import tensorstore as ts

    base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{tmp_path}/"}}
    ts.KvStore.open(base).result().write("w", bytes(1 << 20)).result()
    whole = max(tmp_path.rglob("d/*"), key=lambda path: path.stat().st_size)
    copy = tmp_path.with_name(f"{tmp_path.name}-copy")
    shutil.copytree(tmp_path, copy)
    (copy / whole.relative_to(tmp_path)).write_bytes(whole.read_bytes()[: 1 << 19])
    store = open_ocdbt(LocalStore(copy))
    for span in ((0, None), (0, 1 << 20), ((1 << 20) - 5, 1 << 20), (1 << 19, None)):
        with pytest.raises(StorageError, match="OUT_OF_RANGE"):
            store.read("w", *span)
