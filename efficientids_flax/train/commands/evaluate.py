"""The command `evaluate`: what a checkpoint of a run reaches."""

from typing import Any

import click

from efficientids_flax.commands import command, echo
from efficientids_flax.commands.options import step as step_option
from efficientids_flax.text import metrics_text
from efficientids_flax.train.commands.flags import configuration, run_options


@command("evaluate")
@run_options
@click.option(
    "--split",
    type=click.Choice(["eval", "test"]),
    default="eval",
    show_default=True,
    help="Which data.",
)
@step_option  # fmt: skip
def evaluate(
    config: str | None, settings: dict[str, Any], split: str, step: int | None, as_json: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Evaluate a checkpoint of a run, on its own data."""
    from efficientids_flax.train.run import evaluate as run

    found = run(configuration(config, settings, flags), split, step)
    echo(as_json, found, metrics_text(found))
