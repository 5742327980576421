"""The description of a prepared directory: `manifest.json`, which is written last.

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
    """The manifest of a directory.

    Attributes:
        path: path of the directory.
        values: the whole content.
        digests: name of a file -> its SHA-256, in hexadecimal digits.
        catalogue: digest of the items' raw ids in order, see `digests.catalogue_digest`.
    """

    path: Path
    values: Mapping[str, Any]
    digests: Mapping[str, str]
    catalogue: str | None

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read the manifest of a directory.

        Raises:
            FileNotFoundError: there is none: nothing was prepared, or it was not finished.
            ValueError: it has another format or a later version, or is damaged.
        """
        file = directory / MANIFEST
        if not file.is_file():
            raise FileNotFoundError(
                f"{directory}: no {MANIFEST}, which is written last: `prepare` did not run"
                " here, or did not finish; run it again"
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
            ValueError: files were changed or are missing; names each.
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
    """Raise if a file was made for another catalogue than that of the data.

    Args:
        what: path of the file.
        theirs: catalogue digest in the file; None: it has none, and only sizes are compared.
        items: number of items of the file.
        where: path of the data.
        ours: digest of the data's catalogue; None: unknown.
        num_items: number of items of the data.

    Raises:
        ValueError: the catalogues differ; names both, with their digests.
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
