"""Lists the files of a checkpoint directory, with as few requests as each kind of store allows.

Local directories are scanned one by one, on demand. An object store or an OCDBT database can only
list all keys below a prefix, so its keys are listed once and kept.
"""

from functools import cached_property
from pathlib import Path

from converters.stores import Store, open_store


class Listing:
    """Names below the root of a store.

    Attributes:
        store: the store that is listed.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def remote(self) -> bool:
        """Whether each request goes over the network."""
        return self.store.is_object_store

    def children(self, prefix: str = "") -> list[str]:
        """Names one level below `prefix`, sorted; those of directories end in '/'."""
        if self.store.local_path() is not None:
            return self.store.children(prefix)
        return sorted(self._tree.get(prefix.strip("/"), ()))

    def files(self, prefix: str) -> set[str]:
        """Names of all files below `prefix`, at any depth, relative to it."""
        if self.store.local_path() is not None:
            names = self.store.children(prefix)
            if not any(name.endswith("/") for name in names):
                return set(names)
            return {key[len(prefix) + 1 :] for key in self.store.keys(prefix)}
        found: set[str] = set()
        pending = [prefix.strip("/")]
        while pending:
            place = pending.pop()
            for name in self._tree.get(place, ()):
                key = f"{place}/{name}" if place else name
                if name.endswith("/"):
                    pending.append(key[:-1])
                else:
                    found.add(key[len(prefix) + 1 :] if prefix else key)
        return found

    def has_file(self, key: str) -> bool:
        """Whether there is a file `key`."""
        if self.store.local_path() is not None:
            return self.store.exists(key)
        folder, _, name = key.rpartition("/")
        return name in self._tree.get(folder, ())

    def child(self, prefix: str) -> "Listing":
        """The listing of the directory `prefix`; keys that are already listed are reused."""
        below = Listing(self.store.child(prefix))
        if self.store.local_path() is None and "_tree" in self.__dict__:
            start = prefix.strip("/")
            below.__dict__["_tree"] = {
                place[len(start) + 1 :]: names
                for place, names in self._tree.items()
                if place == start or place.startswith(start + "/")
            }
        return below

    @cached_property
    def _tree(self) -> dict[str, set[str]]:
        """Directory -> names in it, for a store that can only list all of its keys."""
        tree: dict[str, set[str]] = {"": set()}
        keys = self.store.keys()
        for key in keys:
            if key.endswith("/"):  # a marker that some tools write for a directory
                continue
            folder, _, name = key.rpartition("/")
            while name not in tree.setdefault(folder, set()):
                tree[folder].add(name)
                if not folder:
                    break
                folder, _, name = folder.rpartition("/")
                name += "/"
        return tree


def parent(url: str) -> tuple[str, str] | None:
    """(path or URL of the directory that holds `url`, name of `url` in it); None at the top."""
    if "://" in url and not url.startswith("file://"):
        scheme, _, rest = url.partition("://")
        folder, slash, name = rest.rstrip("/").rpartition("/")
        return (f"{scheme}://{folder}", name) if slash else None
    path = Path(url.removeprefix("file://")).absolute()
    return (str(path.parent), path.name) if path.name else None


def ancestors(url: str, count: int) -> list[Store]:
    """Up to `count` directories above `url`, the nearest first."""
    found: list[Store] = []
    above = parent(url)
    while above is not None and len(found) < count:
        found.append(open_store(above[0]))
        above = parent(above[0])
    return found
