"""Writes `manifest.json`, which describes the directory; without it, the output is incomplete."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from efficientids_flax.digests import file_digest
from efficientids_flax.prepare.report import TIES, Report
from efficientids_flax.prepared_format import CATALOGUE, FORMAT, ITEMS, MANIFEST, USERS, VERSION


def write_manifest(place: Path, report: Report) -> None:
    """Write the manifest; call it after everything else is written.

    Args:
        place: the output folder.
        report: what the folder holds.
    """
    tables = {"interactions": report.shards[0].file, "users": USERS, "items": ITEMS}
    found: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "command": dict(report.command),
        "layout": report.layout,
        "schema": {name: _schema(place / file) for name, file in tables.items()},
        "counts": dict(report.counts),
        "rows": dict(report.rows),
        "described": dict(report.described),
        "split": dict(report.split),
        "ties": TIES,
        "time_unit": report.time_unit,
        "shards": [asdict(one) for one in report.shards],
        "digests": {
            **{one.name: file_digest(one) for one in sorted(place.iterdir())},
            CATALOGUE: report.catalogue,
        },
    }
    (place / MANIFEST).write_text(json.dumps(found, indent=1) + "\n")


def _schema(path: Path) -> dict[str, str]:
    schema = pq.read_schema(path)
    return {name: str(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
