"""The command `find-settings`: what a checkpoint does not tell is found from data."""

import sys
from pathlib import Path
from typing import Any

import click

from converters.errors import ConversionError
from efficientids_flax.commands import combined, command, echo
from efficientids_flax.commands.declare import MISTAKES
from efficientids_flax.commands.options import Real, count, tokenizer
from efficientids_flax.commands.options import clustering as clustering_option

OPTIONS = combined(
    click.option("--tokens", metavar="FILE",
                 help="Sequences: .npz of ids, labels, weights [B, T]; .jsonl of token lists; or "
                      "text with --tokenizer. Either these or --against."),
    click.option("--against", metavar="RECORDING", help="Folder of recorded values."),
    tokenizer,
    clustering_option,
    click.option("--try", "also", multiple=True, metavar="KEY",
                 help="Also try a setting whose value is known. Repeatable."),
    count("--length", "Tokens of a sequence from lists or text; longer ones are cut.", 128,
          least=2),
    count("--sequences", "Most sequences to read.", 256, least=8),
    click.option("--minutes", type=Real(min=0, min_open=True), help="Limit of the search."),
    click.option("--dry-run", is_flag=True, help="Write nothing."),
)  # fmt: skip


@command("find-settings", mistakes=(*MISTAKES, ConversionError))
@click.argument("out")  # a missing one is bad input (exit 1), not bad usage
@OPTIONS
def find_settings(
    out: str, tokens: str | None, against: str | None, dry_run: bool, as_json: bool, **given: Any
) -> None:
    """Find from data the settings of the converted model OUT that its checkpoint lacks.

    Tries the values that assumed settings can take, and compares their losses. Settings that the
    data decides are written to OUT/config.json as 'found'; the others stay 'assumed', and are
    listed.
    """
    if (tokens is None) == (against is None):
        raise click.UsageError("give one of --tokens and --against")
    if tokens is None and given["tokenizer"] is not None:
        raise click.UsageError("--tokenizer goes with --tokens")

    from efficientids_flax.stored import write_settings  # JAX comes with it: not for --help
    from parity_tests.found import found_from_recording, found_from_tokens

    if tokens is not None:
        found = found_from_tokens(out, tokens, progress=_progress(as_json), **given)
    else:
        assert against is not None
        kept: dict[str, Any] = {name: given[name] for name in ("clustering", "also", "minutes")}
        found = found_from_recording(out, against, progress=_progress(as_json), **kept)
    write = found.tells and not dry_run
    if write:
        write_settings(Path(out), found.config, {"model": found.origins})
    echo(as_json, found.to_json(write), found.text(write))


def _progress(as_json: bool) -> Any:
    """Lines on a terminal, that say how far the search is."""
    if as_json or not sys.stderr.isatty():
        return None
    return lambda text: click.echo(text, err=True)
