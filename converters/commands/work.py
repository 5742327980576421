"""What the commands that write a checkpoint have in common: how the work is done, what is told."""

from typing import Any

import click

from converters.commands.show import plan_json, plan_text, report_json, report_text
from converters.write import FORMATS, MODES, Report
from efficientids_flax.commands import combined, echo, is_quiet
from efficientids_flax.commands.options import Size, choice, count

WORK = ("to", "verify", "memory", "workers", "overwrite", "resume", "dry_run")

scan_layers = click.option("--scan-layers/--no-scan-layers", default=None,
                           help="Layers stacked, or one by one (default: unchanged).")  # fmt: skip
cast_dtype = click.option("--dtype", help="Cast parameters, e.g. to bfloat16.")
work_options = combined(
    choice("--to", FORMATS, "Format of the output.", "orbax"),
    choice("--verify", MODES, "Which leaves are read back and compared.", "full"),
    click.option("--memory", type=Size(), default="1GiB", show_default=True,
                 help="Limit of memory."),
    count("--workers", "Threads (default: one for each core)."),
    click.option("--overwrite", is_flag=True, help="Replace OUT if it is a converted checkpoint."),
    click.option("--resume", is_flag=True, help="Continue an unfinished conversion."),
    click.option("--dry-run", is_flag=True, help="Print the plan; read no array."),
)  # fmt: skip


def work_of(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of `WorkOptions` among what was given."""
    return {name: given[name] for name in WORK} | {"quiet": is_quiet()}


def tell(report: Report, as_json: bool) -> None:
    """Print what was done, or the plan of a dry run."""
    if report.output is None:
        echo(as_json, plan_json(report.plan), plan_text(report.plan))
    elif report.records:  # of several processes the primary tells
        echo(as_json, report_json(report), report_text(report), remark=True)
