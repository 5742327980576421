"""The commands: parse, call one function, print."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from converters.commands.convert_clustering import convert_clustering
from converters.commands.show import (
    checkpoint_json,
    checkpoint_text,
    plan_json,
    plan_text,
    report_text,
)
from converters.convert import ConvertOptions, convert
from converters.errors import ConversionError
from converters.paxml import open_checkpoint
from converters.plan import PlanOptions
from converters.rules import FAMILIES, read_document
from converters.write import FORMATS, MODES, JaxProcesses, OneProcess, Processes
from efficientids_flax.tree import flatten

__all__ = ["convert_clustering", "convert_paxml", "inspect_paxml"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{unit}i": 1 << 10 * power for power, unit in enumerate("kmgt", 1)}


class Size(click.ParamType):
    """A number of bytes such as 512MiB or 2GB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of a text."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", str(value).lower())
        if found is None or found.group(2) not in _UNITS:
            self.fail(f"{value!r} is not a size such as 512MiB or 2GB", param, ctx)
        number = int(float(found.group(1)) * _UNITS[found.group(2)])
        if number < 1 << 20:
            self.fail("at least 1MiB is needed", param, ctx)
        return number


def settings(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """`key=value` texts as a mapping; values are JSON where they can be read as such."""
    del ctx, param
    found: dict[str, Any] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", value.strip()) and "." in value:
            found[key.strip()] = float(value)  # .9 and 1. are no JSON
            continue
        try:
            found[key.strip()] = json.loads(value)
        except ValueError:
            found[key.strip()] = value
    return found


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several click options as one decorator."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_content = _options(
    click.option("--step", type=click.IntRange(min=0), help="Step to take; the newest otherwise."),
    click.option("--family", type=click.Choice(FAMILIES), help="Table to use; detected otherwise."),
    click.option("--rules", metavar="FILE", help="A table of your own (TOML or YAML)."),
    click.option("--scan-layers/--no-scan-layers", default=None,
                 help="Layers stacked or one by one."),
    click.option("--no-optimizer", is_flag=True, help="Leave the optimizer's state out."),
    click.option("--raw-optimizer", is_flag=True,
                 help="Keep the optimizer's state as PAXml has it."),
    click.option("--dtype", help="Cast parameters, e.g. bfloat16; the rest keeps its dtype."),
    click.option("--dequantize", is_flag=True, help="Multiply int8 weights by their scales."),
    click.option("--job-files", metavar="DIR", help="Where model_params.txt is."),
    click.option("--config", metavar="FILE", help="Configuration values (TOML, YAML or JSON)."),
    click.option("--set", "overrides", multiple=True, callback=settings, metavar="KEY=VALUE",
                 help="A configuration value, e.g. activation=gelu or beta1=0.9. Repeatable."),
    click.option("--also", multiple=True, metavar="CKPT:RULES",
                 help="Take parameters from another checkpoint. Repeatable."),
)  # fmt: skip

_work = _options(
    click.option("--to", type=click.Choice(FORMATS), default="orbax", show_default=True,
                 help="Format of the output."),
    click.option("--verify", type=click.Choice(MODES), default="full", show_default=True,
                 help="How much is read back and compared."),
    click.option("--memory", type=Size(), default="1GiB", show_default=True,
                 help="Memory to work in."),
    click.option("--workers", type=click.IntRange(min=1), help="Threads; one a core otherwise."),
    click.option("--overwrite", is_flag=True, help="Replace OUT if it is a converted checkpoint."),
    click.option("--resume", is_flag=True, help="Go on from an unfinished conversion."),
    click.option("--dry-run", is_flag=True, help="Print the plan; read no array."),
    click.option("--json", "as_json", is_flag=True, help="With --dry-run: the plan as JSON."),
    click.option("--quiet", is_flag=True, help="Print errors only."),
    click.option("--distributed", is_flag=True,
                 help="Share the work with the launcher's processes."),
    click.option("--coordinator", metavar="HOST:PORT",
                 help="With --distributed: the first process."),
    click.option("--processes", type=click.IntRange(min=1), help="With --distributed: how many."),
    click.option("--process", type=click.IntRange(min=0), help="With --distributed: which one."),
)  # fmt: skip


@click.command("convert-paxml", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("ckpt")  # a path or a URL; a missing one is bad input (exit 1), not bad usage
@click.argument("out")
@_content
@_work
def convert_paxml(ckpt: str, out: str, as_json: bool, **given: Any) -> None:
    """Convert the PAXml checkpoint CKPT to a Flax checkpoint at OUT.

    CKPT is a job directory, its checkpoints/ folder, a step directory, its state/ item or a FLAX
    file; OUT is a directory to be made. Both may be gs:// or s3:// URLs.
    """
    if given["no_optimizer"] and given["raw_optimizer"]:
        raise click.UsageError("--no-optimizer and --raw-optimizer exclude each other")
    if as_json and not given["dry_run"]:
        raise click.UsageError("--json goes with --dry-run (OUT/manifest.json is JSON anyway)")
    joins = [
        f"--{name}" for name in ("coordinator", "processes", "process") if given[name] is not None
    ]
    if joins and not given["distributed"]:
        raise click.UsageError(f"{joins[0]} goes with --distributed")
    try:
        report = convert(ckpt, out, _convert_options(given), processes=_processes(given))
    except ConversionError as error:
        raise click.ClickException(str(error)) from error
    if report.output is None:
        click.echo(json.dumps(plan_json(report.plan)) if as_json else plan_text(report.plan))
    elif report.records and not given["quiet"]:
        click.echo(report_text(report))


@click.command("inspect-paxml", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("ckpt")
@click.option("--step", type=click.IntRange(min=0), help="Step to take; the newest otherwise.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect_paxml(ckpt: str, step: int | None, as_json: bool) -> None:
    """Print what the PAXml checkpoint CKPT holds, without reading its arrays."""
    try:
        checkpoint = open_checkpoint(ckpt, step)
        text = json.dumps(checkpoint_json(checkpoint)) if as_json else checkpoint_text(checkpoint)
    except ConversionError as error:
        raise click.ClickException(str(error)) from error
    click.echo(text)


def _convert_options(given: dict[str, Any]) -> ConvertOptions:
    overrides: dict[str, Any] = {}
    if given["config"] is not None:
        overrides = flatten(read_document(Path(given["config"])), separator=".", keep_empty=True)
    optimizer = "none" if given["no_optimizer"] else "raw" if given["raw_optimizer"] else "convert"
    plan = PlanOptions(
        optimizer=optimizer,
        overrides=overrides | given["overrides"],
        **{
            name: given[name]
            for name in (
                "family",
                "rules",
                "scan_layers",
                "dtype",
                "dequantize",
                "job_files",
                "also",
            )
        },
    )
    work = ("step", "to", "verify", "memory", "workers", "overwrite", "resume", "dry_run", "quiet")
    return ConvertOptions(plan, **{name: given[name] for name in work})


def _processes(given: dict[str, Any]) -> Processes:
    if not given["distributed"]:
        return OneProcess()
    return JaxProcesses.start(given["coordinator"], given["processes"], given["process"])
