"""The command `export`: the model of a run, in the form of a converted one."""

from typing import Any

import click

from efficientids_flax.commands import command, echo
from efficientids_flax.commands.options import count
from efficientids_flax.train.commands.flags import run_options, sections


@command("export")
@click.argument("out")
@run_options
@count("--step", "Step to use (default: the best, or the newest).", least=0)
def export(
    out: str, config: str | None, settings: dict[str, Any], step: int | None, as_json: bool,
    **flags: Any,
) -> None:  # fmt: skip
    """Write the model of a run to OUT for inference, in the form of a converted model."""
    from efficientids_flax.train.run import export_described as run

    written = run(sections(config, settings, flags), out, step)
    echo(as_json, {"output": out, "step": written}, f"{out}: the model of step {written}",
         remark=True)  # fmt: skip
