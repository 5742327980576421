"""The command `parity`, which is `parity-check` too: a converted model against its original."""

from pathlib import Path
from typing import Any

import click

from converters.errors import ConversionError
from efficientids_flax.commands import command, echo, is_quiet
from efficientids_flax.commands.declare import MISTAKES
from efficientids_flax.commands.options import clustering as clustering_option
from efficientids_flax.commands.options import compute_dtype, set_option


@command("parity", mistakes=(*MISTAKES, ConversionError))
@click.argument("out")  # a missing one is bad input (exit 1), not bad usage
@click.option("--against", required=True, metavar="RECORDING", help="Folder of recorded values.")
@clustering_option
@set_option("Change a value of the configuration.")
@compute_dtype
@click.option(
    "--only", metavar="PATTERN", help="Compare only matching names; '*' matches anything."
)
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a report.")
def parity(
    out: str,
    against: str,
    clustering: str | None,
    settings: dict[str, Any],
    dtype: str | None,
    only: str | None,
    junit: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Compare the converted model OUT with a recording of the original, value by value.

    Exits with 0 if everything agrees, with 1 if anything differs or cannot be compared.
    """
    from rich.console import Console

    from parity_tests.converted import parity as run  # JAX comes with it: not for --help
    from parity_tests.report import WIDTH, print_report, report_json, write_html, write_junit

    report = run(out, against, clustering=clustering, settings=settings, dtype=dtype, only=only)
    for path, write in ((junit, write_junit), (html, write_html)):
        if path is not None:
            write(report, path)
    if as_json:
        echo(as_json, report_json(report), "")
    elif is_quiet():
        click.echo(report.summary())
    else:
        console = Console()
        print_report(report, console if console.is_terminal else Console(width=WIDTH))
    if not report.passes:
        raise SystemExit(1)
