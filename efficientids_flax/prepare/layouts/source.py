"""Finds the files of a source, and says what is read from each."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

from efficientids_flax.prepare.forms import Field
from efficientids_flax.prepare.reading.look import Look

SHOWN = 5  # folders named in a message
ARCHIVES = {".zip", ".tar", ".tgz"}
UNFINISHED = re.compile(r".+\.(partial|scratch|old)-[0-9a-f]{8}")  # folders made by `output`
# Names of parts of a split in file names -> their order in time.
PARTS = {
    "train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "eval": 1,
    "test": 2,
}  # fmt: skip


class SourceError(ValueError):
    """A source that does not exist, or fits no layout."""


@dataclass(frozen=True)
class Taken:
    """One file of a source.

    Attributes:
        look: its first rows.
        fields: what is read from it.
    """

    look: Look
    fields: tuple[Field, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles its rows have."""
        return tuple(one.role for one in self.fields)


@dataclass(frozen=True)
class Source:
    """Where interactions and items come from.

    Attributes:
        layout: name of the layout.
        told: description for people.
        interactions: files, in the order in which they are read.
        items: files that describe items.
        remarks: decisions that the user may want to check.
    """

    layout: str
    told: str
    interactions: tuple[Taken, ...]
    items: tuple[Taken, ...] = ()
    remarks: tuple[str, ...] = field(default=())

    def has(self, role: str) -> bool:
        """Whether interactions have this role; either all files have it or none."""
        return role in self.interactions[0].roles


def find_files(sources: Sequence[str]) -> tuple[list[Path], bool]:
    """Find the files of a source, in the order given; those of a folder or pattern by name.

    Files named after a validation part come after all others, those of a test part last.

    Args:
        sources: files, folders, or patterns such as `part-*.csv`, `**/*.csv`.

    Returns:
        The files, and whether all were named (none was found in a folder).

    Raises:
        SourceError: one does not exist.
    """
    found: list[Path] = []
    named = True
    for source in sources:
        path = Path(source)
        if path.is_dir():
            named = False
            inside = sorted(one for one in path.iterdir() if one.is_file() and not _hidden(one))
            if not inside:
                folders = [one.name for one in sorted(path.iterdir()) if one.is_dir()][:SHOWN]
                hint = (
                    f", but folders: {', '.join(folders)}; give one, or a pattern"
                    if folders
                    else ""
                )
                raise SourceError(f"{source}: the folder holds no files{hint}")
            found += inside
        elif path.exists():
            found.append(path)
        elif has_magic(source):
            matching = sorted(map(Path, glob(source, recursive=True)))  # noqa: PTH207 (any path)
            if not matching:
                raise SourceError(f"{source}: no file has such a name")
            found += [one for one in matching if one.is_file()]
        else:
            raise SourceError(f"{source}: no such file or folder")
    found = sorted(dict.fromkeys(found), key=lambda one: part_of_split(one) or 0)
    archives = [str(one) for one in found if one.suffix.lower() in ARCHIVES]
    if archives and (named or len(archives) == len(found)):
        raise SourceError(f"{archives[0]}: is an archive; unpack it and give what it holds")
    return found, named


def part_of_split(path: Path) -> int | None:
    """The part of a split that a file is named after, a value of `PARTS`; None: none."""
    pieces = re.split(r"[^a-z]+", path.name.lower())
    return next((PARTS[piece] for piece in pieces if piece in PARTS), None)


def folders_inside(sources: Sequence[str]) -> list[str]:
    """Names of the subfolders of a source's folders; these are not read."""
    return [
        f"{one.name}/"
        for source in sources
        if Path(source).is_dir()
        for one in sorted(Path(source).iterdir())
        if one.is_dir() and not _hidden(one) and not UNFINISHED.fullmatch(one.name)
    ]


def _hidden(path: Path) -> bool:
    """Whether a file is marked as no data, as Spark and others do: `_SUCCESS`, `.part-0.crc`."""
    return path.name.startswith((".", "_"))
