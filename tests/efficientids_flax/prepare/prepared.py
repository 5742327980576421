"""Runs `prepare` and reads back what it wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from efficientids_flax.prepare import Choice, PrepareOptions, prepare


class Written(NamedTuple):
    """What is in a prepared directory."""

    manifest: dict[str, Any]
    users: list[dict[str, Any]]
    items: list[dict[str, Any]]
    rows: list[dict[str, Any]]

    @property
    def ids(self) -> list[str]:
        """Of the items, in order."""
        return [one["id"] for one in self.items]

    def sequences(self) -> list[list[tuple[str, Any, Any, int]]]:
        """Of each user (item, time, rating, split), in the order of the file."""
        found: list[list[tuple[str, Any, Any, int]]] = [[] for _ in self.users]
        for row in self.rows:
            one = self.ids[row["item"]], row.get("time"), row.get("rating"), row["split"]
            found[row["user"]].append(one)
        return found


def read(out: Path) -> Written:
    """Everything."""
    manifest = json.loads((out / "manifest.json").read_text())
    rows = [
        row
        for shard in manifest["shards"]
        for row in pq.read_table(out / shard["file"]).to_pylist()
    ]
    tables = (pq.read_table(out / f"{name}.parquet").to_pylist() for name in ("users", "items"))
    return Written(manifest, *tables, rows)


def run(
    source: Any, out: Path, *, columns: Mapping[str, str] | None = None, **options: Any
) -> Written:
    """Prepare and read; `choice` or `columns`, and `PrepareOptions`."""
    choice = options.pop("choice", None) or Choice(columns=columns or {})
    prepare(source, out, PrepareOptions(choice, memory=1 << 28, threads=1, **options))
    return read(out)
