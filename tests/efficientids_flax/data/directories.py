"""Directories as `prepare` writes them, of a few events."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from efficientids_flax.digests import catalogue_digest, file_digest

# user -> items in order, with 0, 1, 2 for what is trained on, validated on and tested on
Events = Sequence[tuple[Sequence[int], Sequence[int]]]

EVENTS: Events = (
    ([3, 1, 4, 1, 5, 9], [0, 0, 0, 0, 1, 2]),
    ([2, 6], [1, 2]),  # nothing to train on
    ([5, 3, 5, 8, 9, 7, 9, 3], [0, 0, 0, 0, 0, 0, 1, 2]),
    ([0, 2, 8], [0, 1, 2]),  # one event to train on: no label
    ([4], [0]),
    ([7, 6, 5, 4], [0, 0, 0, 0]),
)
ITEMS = 10


def write_prepared(
    root: Path, events: Events = EVENTS, num_items: int = ITEMS, shards: int = 2, **changes: Any
) -> Path:
    """A directory of these events; `changes` replace columns, by 'table.column'."""
    import pyarrow as pa
    from pyarrow import parquet

    root.mkdir(parents=True, exist_ok=True)
    users = np.repeat(np.arange(len(events)), [len(items) for items, _ in events])
    columns = {
        "user": users.astype(np.int32),
        "item": np.asarray([i for items, _ in events for i in items], np.int32),
        "time": np.arange(len(users), dtype=np.int64),
        "split": np.asarray([s for _, splits in events for s in splits], np.int8),
    }
    columns |= _named(changes, "interactions")
    ids = [f"film,{item}" for item in range(num_items)]
    digests = {}

    def write(name: str, table: Mapping[str, Any]) -> None:
        parquet.write_table(pa.table(dict(table)), root / name)
        digests[name] = file_digest(root / name)

    bounds = np.linspace(0, len(events), shards + 1).astype(int)
    for shard in range(shards):
        inside = (users >= bounds[shard]) & (users < bounds[shard + 1])
        part = {name: value[inside] for name, value in columns.items()}
        write(f"interactions-{shard:05d}-of-{shards:05d}.parquet", part)
    trained = columns["item"][columns["split"] == 0]
    items = {
        "item": np.arange(num_items, dtype=np.int32),
        "id": ids,
        "title": [f"title {item}" for item in range(num_items)],
        "count": np.bincount(trained[trained >= 0], minlength=num_items)[:num_items].astype(
            np.int32
        ),
        "cold": ~np.isin(np.arange(num_items), trained),
    } | _named(changes, "items")
    write("items.parquet", items)
    counts = np.asarray([len(items) for items, _ in events], np.int32)
    write("users.parquet", {"user": np.arange(len(events), dtype=np.int32),
                            "id": [f"u{user}" for user in range(len(events))],
                            "count": counts})  # fmt: skip
    lines = [json.dumps({"id": id_, "title": f"title {n}"}) for n, id_ in enumerate(ids)]
    (root / "items.jsonl").write_text("".join(f"{line}\n" for line in lines))
    manifest = {
        "format": "efficientids-data", "version": 1, "command": {}, "schema": {},
        "counts": {"users": len(events), "items": num_items, "interactions": len(users)},
        "digests": {**digests, "catalogue": catalogue_digest(ids)},
    }  # fmt: skip
    (root / "manifest.json").write_text(json.dumps(manifest | _named(changes, "manifest")))
    return root


def _named(changes: Mapping[str, Any], table: str) -> dict[str, Any]:
    return {
        name.split(".")[1]: value for name, value in changes.items() if name.startswith(f"{table}.")
    }
