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
    click.option("--out", required=True, metavar="DIR", help="The directory to make."),
    click.option("--layout", metavar="NAME",
                 help="How SOURCE is laid out; recognised otherwise. `table` is any other."),
    click.option("--user", metavar="COLUMN", help="The column of users, of a table."),
    click.option("--item", metavar="COLUMN", help="The column of items."),
    click.option("--time", metavar="COLUMN", help="The column of times."),
    click.option("--rating", metavar="COLUMN", help="The column of ratings."),
    click.option("--title", metavar="COLUMN", help="The column of items' titles."),
    click.option("--text", metavar="COLUMN", help="The column of items' texts."),
    click.option("--items", metavar="FILE", help="Where items are described, if not in SOURCE."),
    click.option("--items-id", metavar="COLUMN", help="Its column of ids."),
    click.option("--no-time", is_flag=True, help="Do without times: the order of SOURCE counts."),
    click.option("--no-rating", is_flag=True, help="Do without ratings."),
    click.option("--separator", metavar="TEXT", callback=_tab,
                 help="Between columns of a table of text; \\t is a tab."),
    click.option("--columns", callback=_names, metavar="A,B,...",
                 help="Names of the columns of a table without a header."),
    click.option("--no-quotes", is_flag=True, help="Quotes in a table of text are characters."),
    click.option("--encoding", metavar="NAME", help="Of texts; UTF-8 otherwise."),
    choice("--time-unit", UNITS, "What times count; recognised otherwise."),
    count("--max-bad", "How many malformed rows may be left out.", 0, least=0),
    click.option("--min-rating", type=Real(), help="Leave out rows with a lower rating."),
    choice("--duplicates", ("keep-first", "keep-last", "all"),
           "What is kept of rows with the same user and item.", "keep-first"),
    count("--k-core", "--min-user and --min-item at once."),
    count("--min-user", "Leave out users with fewer interactions; repeated until none has."),
    count("--min-item", "Leave out items with fewer; of a split by time, in its training part."),
    choice("--split", ("leave-one-out", "time", "none"),
           "What is tested on: each user's last, or what comes later.", "leave-one-out"),
    click.option("--valid-from", metavar="TIME", help="Of --split time: a date, or a number."),
    click.option("--test-from", metavar="TIME", help="The same of the test part."),
    click.option("--valid-fraction", type=Real(), help="In its place: the share of interactions."),
    click.option("--test-fraction", type=Real(), help="The same of the test part."),
    choice("--engine", ("duckdb", "spark"), "What computes it; the output is the same.", "duckdb"),
    click.option("--memory", type=Size(), default="2GiB", show_default=True,
                 help="About as much is taken; more goes to disk."),
    count("--threads", "Of the engine; all cores otherwise."),
    count("--shard-rows", "Begin a new file after so many rows.", 1 << 22),
    overwrite,
)  # fmt: skip


@command("prepare")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@OPTIONS
def prepare(
    sources: tuple[str, ...], out: str, k_core: int | None, min_user: int | None,
    min_item: int | None, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Make a directory of data out of the interactions in SOURCE.

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
