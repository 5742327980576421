"""What a prepared directory says of itself: `manifest.json`, which is written last.

{"format": "efficientids-data", "version": 1, "command": {...}, "schema": {...}, "counts": {...},
 "split": ..., "ties": ..., "digests": {"users.parquet": SHA-256, ..., "catalogue": SHA-256}}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efficientids_flax.digests import file_digest
from efficientids_flax.prepared_format import CATALOGUE, FORMAT, MANIFEST, VERSION


@dataclass(frozen=True)
class Manifest:
    """Of a directory.

    Attributes:
        path: of the directory.
        values: everything that it says.
        digests: name of a file -> SHA-256 of it, in hexadecimal digits.
        catalogue: of the raw ids of the items in their order, see `digests.catalogue_digest`.
    """

    path: Path
    values: Mapping[str, Any]
    digests: Mapping[str, str]
    catalogue: str | None

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """That of a directory.

        Raises:
            FileNotFoundError: there is none: nothing was prepared, or not to the end.
            ValueError: it is of another format, of a later version, or damaged.
        """
        file = directory / MANIFEST
        if not file.is_file():
            raise FileNotFoundError(
                f"{directory}: no {MANIFEST}, which is written last: prepare has not been here, or"
                " has not come to its end; run it again"
            )
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file}: is no JSON: {error}; prepare the data again") from error
        found = values.get("format") if isinstance(values, dict) else values
        if found != FORMAT:
            raise ValueError(f"{file}: format: found {found!r}, expected {FORMAT!r}")
        if values.get("version") != VERSION:
            raise ValueError(
                f"{file}: version: found {values.get('version')!r}, this release reads {VERSION}"
            )
        digests = values.get("digests")
        if not isinstance(digests, dict):
            raise ValueError(f"{file}: digests: missing; prepare the data again")
        files = digests.get("files", {k: v for k, v in digests.items() if k != CATALOGUE})
        return cls(directory, values, files, digests.get(CATALOGUE))

    def count(self, name: str) -> int | None:
        """A number of `counts`; None: it is not there."""
        found = self.values.get("counts", {}).get(name)
        return found if isinstance(found, int) else None

    def verify(self) -> None:
        """Compare every file with its digest.

        Raises:
            ValueError: naming each file that is another than the one that was written, or missing.
        """
        problems = []
        for name, expected in sorted(self.digests.items()):
            file = self.path / name
            if not file.is_file():
                problems.append(f"{file}: missing")
            elif (found := file_digest(file)) != expected:
                problems.append(f"{file}: sha256 {found}, the manifest has {expected}")
        if problems:
            raise ValueError(
                "\n  ".join(["data: not what was prepared:", *problems, "prepare it again"])
            )


def check_catalogue(
    what: str, theirs: str | None, items: int, where: str, ours: str | None, num_items: int
) -> None:
    """Raise if something was made of another catalogue than that of the data.

    Args:
        what: its file.
        theirs: digest that it carries; None: it carries none, and its size alone is compared.
        items: how many it has.
        where: the data.
        ours: digest of the data's catalogue; None: not known.
        num_items: how many the data has.

    Raises:
        ValueError: naming both, and both digests.
    """
    if theirs is not None and ours is not None and theirs != ours:
        raise ValueError(
            f"{what}: was made of another catalogue ({items} items, digest {theirs}) than {where}"
            f" ({num_items} items, digest {ours}): its rows stand for other items; make it again of"
            " this data"
        )
    if items != num_items:
        raise ValueError(
            f"{what}: has {items} items, {where} has {num_items}: it is of another catalogue; make"
            " it again of this data"
        )
