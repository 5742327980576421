"""The command `inspect`, which is `inspect-paxml` too: what a PAXml checkpoint holds."""

import click

from converters.commands.show import checkpoint_json, checkpoint_text
from converters.errors import ConversionError
from converters.paxml import open_checkpoint
from efficientids_flax.commands import command, echo
from efficientids_flax.commands.options import step as step_option


@command("inspect", mistakes=(ConversionError,))
@click.argument("ckpt")  # a path or a URL; a missing one is bad input (exit 1), not bad usage
@step_option
def inspect(ckpt: str, step: int | None, as_json: bool) -> None:
    """Print what the PAXml checkpoint CKPT holds, without reading its arrays."""
    about = checkpoint_json(open_checkpoint(ckpt, step))
    echo(as_json, about, checkpoint_text(about))
