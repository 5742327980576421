"""All steps from a source to a directory of training data, in order."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pyarrow as pa

from efficientids_flax.prepare.catalogue import write_items, write_users
from efficientids_flax.prepare.engines import Engine, ahead, check_engine, find_engine
from efficientids_flax.prepare.layouts import Source, recognise
from efficientids_flax.prepare.manifest import write_manifest
from efficientids_flax.prepare.options import PrepareOptions
from efficientids_flax.prepare.output import output
from efficientids_flax.prepare.reading import to_arrow, to_numpy
from efficientids_flax.prepare.report import Done, Report, report_of
from efficientids_flax.prepare.sequences import Rule, whole_users
from efficientids_flax.prepare.shards import Counts, Shard, ShardWriter
from efficientids_flax.prepare.stage import Staged, stage, users_in_turn
from efficientids_flax.prepared_format import COLUMNS

log = logging.getLogger(__name__)
ENGINE_SHARE = 0.55  # share of the memory; the rest is for reading, writing and Python
TABLES = 2  # tables of whole users waiting to be written


def prepare(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: PrepareOptions | None = None,
) -> Report:
    """Prepare interactions for training.

    Args:
        sources: a file, a folder or a pattern, or several of them.
        out: directory to make.
        options: filters, split, and how it is computed.

    Returns:
        What was read, left out and written, as in `manifest.json`.

    Raises:
        ValueError: a source, its rows or the options are invalid; among others `SourceError`,
            `MalformedError`, `UnreadableError`, `OutputError`.
        ImportError: a package of the engine is not installed.
        OSError: a file cannot be read or written.
    """
    options = options or PrepareOptions()
    given = [sources] if isinstance(sources, str | os.PathLike) else sources
    names = [os.fspath(one) for one in given]
    check_engine(options.engine)
    with (
        output(out, overwrite=options.overwrite) as (place, scratch),
        ThreadPoolExecutor(1) as thread,
    ):
        found_engine = thread.submit(_engine, options.engine)
        source = recognise(names, options.choice)
        _check_roles(source, options)
        log.info(
            "reading %s: %s",
            source.told,
            ", ".join(one.look.path.name for one in source.interactions),
        )
        tables = scratch / "staged"
        tables.mkdir()
        staged = stage(source, tables, max_bad=options.max_bad, unit=options.time_unit)
        if not staged.rows:
            raise ValueError(f"{source.interactions[0].look.path}: holds no interactions")
        log.info("%d rows are read", staged.rows)
        memory = int(options.memory * ENGINE_SHARE)
        open_engine = found_engine.result()
        with open_engine(scratch, memory, options.threads) as engine:
            for name in staged.tables:
                engine.view(name, tables / f"{name}.parquet")
            done = _written(engine, place, staged, options)
        report = report_of(source, staged, options, done)
        write_manifest(place, report)
    return replace(report, out=Path(out))


def _engine(name: str) -> Callable[[Path, int, int | None], Engine]:
    """Import Ibis and the engine, in a thread while files are read; gives its constructor."""
    import_module("efficientids_flax.prepare.filters")
    return find_engine(name)


def _check_roles(source: Source, options: PrepareOptions) -> None:
    name = source.interactions[0].look.path
    if options.min_rating is not None and not source.has("rating"):
        raise ValueError(f"{name}: has no ratings for `min_rating`; name their column by `rating`")
    if options.split == "time" and not source.has("time"):
        raise ValueError(f"{name}: has no times to split by; name their column by `time`")


def _written(engine: Engine, place: Path, staged: Staged, options: PrepareOptions) -> Done:
    from efficientids_flax.prepare import relations
    from efficientids_flax.prepare.filters import filtered

    for role in ("user", "item"):
        numbered = role in staged.numbered
        engine.keep(f"all_{role}_ids", relations.ids(f"{role}s", numbered=numbered))
        if not numbered:
            engine.keep(f"{role}_codes", relations.codes(f"{role}s", f"all_{role}_ids"))
    found = filtered(engine, staged, options)
    num_items = int(engine.row(relations.count(relations.in_order(found.ids["item"])))["found"])
    rule = Rule(options.duplicates, options.split, num_items, found.valid_from, found.test_from)
    counts = Counts(num_items)
    log.info("sorting and writing")
    if found.ordered is None:
        tables = ahead(users_in_turn(staged), TABLES)
    else:
        tables = whole_users(ahead(engine.batches(found.ordered)))
    shards, sorted_rows = _write_rows(tables, place, rule, counts, staged, options.shard_rows)
    write_users(place, engine.batches(relations.in_order(found.ids["user"])), counts)
    engine.keep("descriptions", relations.descriptions(found.ids["item"]))
    described = int(engine.row(relations.count(relations.kept_descriptions()))["found"])
    items = engine.batches(relations.described_items(found.ids["item"]))
    catalogue = write_items(place, items, counts)
    return Done(found, counts, sorted_rows, tuple(shards), catalogue, described)


def _write_rows(
    tables: Iterator[pa.Table],
    place: Path,
    rule: Rule,
    counts: Counts,
    staged: Staged,
    shard_rows: int,
) -> tuple[list[Shard], int]:
    """Write the interactions; gives the files, and the number of rows including duplicates."""
    there = {"time": staged.times, "rating": staged.rated}
    columns = [one for one in COLUMNS["interactions"].items() if there.get(one[0], True)]
    writer = ShardWriter(place, pa.schema(columns), shard_rows)
    rows = 0
    try:
        for table in tables:
            rows += len(table)
            split = rule.apply(table)
            counts.add(split)
            writer.write(_in_unit(split, staged.divisor))
        return writer.close(), rows
    finally:
        writer.abandon()


def _in_unit(rows: pa.Table, divisor: int) -> pa.Table:
    if divisor == 1:
        return rows
    at = rows.schema.get_field_index("time")
    whole = to_numpy(rows.column(at)) // divisor
    return rows.set_column(at, "time", to_arrow(whole))
