"""Writes the tables of users and items: raw ids, titles and texts by number."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from efficientids_flax.digests import catalogue_bytes
from efficientids_flax.prepare.reading import to_arrow, to_numpy
from efficientids_flax.prepare.shards import GROUP, Counts, open_parquet
from efficientids_flax.prepared_format import COLUMNS, ITEMS, USERS

USER, ITEM = (pa.schema(list(COLUMNS[table].items())) for table in ("users", "items"))


@dataclass(frozen=True)
class Catalogue:
    """Facts about the items that were written.

    Attributes:
        digest: digest of their ids in order, see `digests.catalogue_digest`.
        titled: number of items with a title or a text.
    """

    digest: str
    titled: int


def write_users(place: Path, rows: Iterable[pa.RecordBatch], counts: Counts) -> None:
    """Write `users.parquet`.

    Args:
        place: the output folder.
        rows: number and id, ordered by number.
        counts: counts of the rows that were written.
    """
    of_user = np.concatenate(counts.of_user)
    with open_parquet(place / USERS, USER) as writer:
        at = 0
        for table in groups(rows):
            _check_numbers(table, at, len(of_user))
            found = [table["number"], table["id"], to_arrow(of_user[at : at + len(table)])]
            writer.write_table(_table(found, USER), row_group_size=GROUP)
            at += len(table)
    if at != len(of_user):
        raise RuntimeError(f"{at} users have ids, {len(of_user)} have rows; this is a bug of ours")


def write_items(place: Path, rows: Iterable[pa.RecordBatch], counts: Counts) -> Catalogue:
    """Write `items.parquet` and `items.jsonl`.

    Args:
        place: the output folder.
        rows: number, id, title and text, ordered by number.
        counts: counts of the rows that were written.
    """
    digest, titled, at = hashlib.sha256(), 0, 0
    cold = counts.cold
    with (
        open_parquet(place / ITEMS, ITEM) as writer,
        (place / "items.jsonl").open("wb") as lines,
    ):
        for table in groups(rows):
            _check_numbers(table, at, len(cold))
            end = at + len(table)
            of_item = to_arrow(counts.of_item[at:end].astype(np.int32))
            found = [table[name] for name in ("number", "id", "title", "text")]
            found += [of_item, to_arrow(cold[at:end])]
            writer.write_table(_table(found, ITEM), row_group_size=GROUP)
            titles, texts = table["title"].to_pylist(), table["text"].to_pylist()
            for one, title, text in zip(table["id"].to_pylist(), titles, texts, strict=True):
                name = json.dumps(one)
                digest.update(catalogue_bytes(one))
                lines.write(f'{{"id": {name}, "title": {json.dumps(title)}}}\n'.encode())
                titled += title is not None or text is not None
            at = end
    if at != len(cold):
        raise RuntimeError(f"{at} items have ids, {len(cold)} have rows; this is a bug of ours")
    return Catalogue(digest.hexdigest(), titled)


def groups(batches: Iterable[pa.RecordBatch], rows: int = GROUP) -> Iterator[pa.Table]:
    """Regroup rows into tables of `rows` rows; the last may be shorter."""
    held: list[pa.RecordBatch] = []
    length = 0
    for batch in batches:
        held.append(batch)
        length += len(batch)
        while length >= rows:
            table = pa.Table.from_batches(held)
            yield table.slice(0, rows).combine_chunks()
            held, length = table.slice(rows).to_batches(), length - rows
    if length:
        yield pa.Table.from_batches(held).combine_chunks()


def _check_numbers(table: pa.Table, start: int, most: int) -> None:
    numbers = to_numpy(table["number"])
    if start + len(table) > most or not (numbers == np.arange(start, start + len(table))).all():
        raise RuntimeError(f"numbers from {start} on are not in order; this is a bug of ours")


def _table(columns: list[pa.Array], schema: pa.Schema) -> pa.Table:
    return pa.table(dict(zip(schema.names, columns, strict=True))).cast(schema)
