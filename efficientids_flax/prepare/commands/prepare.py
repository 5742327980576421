"""The command `prepare`: interactions on disk become data to train on."""

import re
from pathlib import Path
from typing import Any

import click

from efficientids_flax.commands import combined, command, echo
from efficientids_flax.commands.options import Real, Size, choice, count, overwrite

COLUMNS = ("user", "item", "time", "rating", "title", "text")
UNITS = ("s", "ms", "us", "ns")


def _names(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(","))


def _tab(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    return None if text is None else text.replace("\\t", "\t")


OPTIONS = combined(
    click.option("--out", required=True, metavar="DIR", help="Directory to write."),
    click.option("--layout", metavar="NAME",
                 help="Layout of SOURCE (default: recognised); `table` is any other."),
    click.option("--user", metavar="COLUMN", help="Column of users, for a table."),
    click.option("--item", metavar="COLUMN", help="Column of items."),
    click.option("--time", metavar="COLUMN", help="Column of times."),
    click.option("--rating", metavar="COLUMN", help="Column of ratings."),
    click.option("--title", metavar="COLUMN", help="Column of item titles."),
    click.option("--text", metavar="COLUMN", help="Column of item texts."),
    click.option("--items", metavar="FILE", help="File with descriptions of items, if not in "
                                                 "SOURCE."),
    click.option("--items-id", metavar="COLUMN", help="Id column of --items."),
    click.option("--no-time", is_flag=True, help="Ignore times; use the order of SOURCE."),
    click.option("--no-rating", is_flag=True, help="Ignore ratings."),
    click.option("--separator", metavar="TEXT", callback=_tab,
                 help="Separator of columns of a text table; \\t is a tab."),
    click.option("--columns", callback=_names, metavar="A,B,...",
                 help="Column names, for a table without a header."),
    click.option("--no-quotes", is_flag=True, help="Treat quotes as ordinary characters."),
    click.option("--encoding", metavar="NAME", help="Encoding of text files (default: UTF-8)."),
    choice("--time-unit", UNITS, "Unit of times (default: recognised)."),
    count("--max-bad", "Most malformed rows to leave out.", 0, least=0),
    click.option("--min-rating", type=Real(), help="Drop rows with a lower rating."),
    choice("--duplicates", ("keep-first", "keep-last", "all"),
           "Which rows of the same user and item to keep.", "keep-first"),
    count("--k-core", "Set --min-user and --min-item."),
    count("--min-user", "Drop users with fewer interactions, repeatedly."),
    count("--min-item", "Drop items with fewer (with --split time: in training)."),
    choice("--split", ("leave-one-out", "time", "none"),
           "Test on each user's last interaction, or on a later time.", "leave-one-out"),
    click.option("--valid-from", metavar="TIME", help="With --split time: start of the validation"
                                                      " part."),
    click.option("--test-from", metavar="TIME", help="The same for the test part."),
    click.option("--valid-fraction", type=Real(), help="Share of interactions, instead of "
                                                       "--valid-from."),
    click.option("--test-fraction", type=Real(), help="The same for the test part."),
    choice("--engine", ("duckdb", "spark"), "Engine; the output is the same.", "duckdb"),
    click.option("--memory", type=Size(), default="2GiB", show_default=True,
                 help="Approximate limit of memory; more goes to disk."),
    count("--threads", "Threads of the engine (default: all cores)."),
    count("--shard-rows", "Rows of a file.", 1 << 22),
    overwrite,
)  # fmt: skip


@command("prepare")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@OPTIONS
def prepare(
    sources: tuple[str, ...], out: str, k_core: int | None, min_user: int | None,
    min_item: int | None, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Make a directory of training data from the interactions in SOURCE.

    SOURCE is a file, a folder or a pattern: MovieLens, Amazon reviews, RecBole's atomic files, or
    any CSV, TSV, JSON lines or Parquet whose columns are named.
    """
    if given["items_id"] and not given["items"]:
        raise click.UsageError("--items-id goes with --items")
    try:
        from efficientids_flax.prepare import Choice, PrepareOptions
        from efficientids_flax.prepare import prepare as run
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{error.name} is not installed; pip install "efficientids-flax[prepare]"'
        ) from error

    columns = {role: name for role in COLUMNS if (name := given.pop(role)) is not None}
    without = {role for role in ("time", "rating") if given.pop(f"no_{role}")}
    if both := without & columns.keys():
        raise click.UsageError(f"--{min(both)} and --no-{min(both)} exclude each other")
    choice = Choice(
        layout=given.pop("layout"), columns=columns, items=given.pop("items"),
        items_id=given.pop("items_id"), without=frozenset(without),
        separator=given.pop("separator"), quotes=not given.pop("no_quotes"),
        encoding=given.pop("encoding"), header=given.pop("columns"),
    )  # fmt: skip
    try:
        options = PrepareOptions(
            choice, min_user=min_user or k_core or 1, min_item=min_item or k_core or 1, **given
        )
    except ValueError as error:
        options = re.sub(r"`(\w+)`", lambda name: f"--{name[1].replace('_', '-')}", str(error))
        raise click.UsageError(options) from error
    report = run(sources, Path(out), options)
    echo(as_json, report.to_dict(), report.text(), remark=True)
