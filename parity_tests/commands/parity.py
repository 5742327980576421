"""The command parity-check: a converted checkpoint against a recording of the original."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from converters.errors import ConversionError
from efficientids_flax.core.clustering import ClusteringError
from parity_tests.report import WIDTH, print_report, write_html, write_junit


def _settings(
    context: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    """`key=value` texts as a mapping; values are JSON where they can be read as such."""
    del context, param
    found: dict[str, Any] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value
    return found


@click.command("parity-check", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("out")  # a missing one is bad input (exit 1), not bad usage
@click.option("--against", required=True, metavar="RECORDING", help="Folder of recorded values.")
@click.option("--clustering", metavar="FILE", help="Of a recommender; else the recording's own.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, callback=_settings,
              help="Run with another value of the configuration.")  # fmt: skip
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]),
              help="Compute in it; half precision needs a recording in it.")  # fmt: skip
@click.option("--only", metavar="PATTERN", help="Compare names like this, '*' for anything.")
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write JUnit XML.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a report.")
def parity_check(
    out: str,
    against: str,
    clustering: str | None,
    settings: dict[str, Any],
    dtype: str | None,
    only: str | None,
    junit: Path | None,
    html: Path | None,
) -> None:
    """Compare the converted checkpoint OUT with what the original computed, value by value.

    Exits with 0 if all of it agrees, with 1 if anything differs or cannot be compared.
    """
    from parity_tests.converted import parity  # JAX comes with it: not for --help

    try:
        report = parity(
            out, against, clustering=clustering, settings=settings, dtype=dtype, only=only
        )
        for path, write in ((junit, write_junit), (html, write_html)):
            if path is not None:
                write(report, path)
    except (OSError, ValueError, ImportError, ClusteringError, ConversionError) as error:
        raise click.ClickException(str(error)) from error
    console = Console()
    print_report(report, console if console.is_terminal else Console(width=WIDTH))
    if not report.passes:
        raise SystemExit(1)
