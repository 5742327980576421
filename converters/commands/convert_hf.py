"""The command `convert-hf`: parse, call one function, print."""

import json
from typing import Any

import click

from converters.commands.convert import Size, settings
from converters.commands.show import plan_json, plan_text, report_text
from converters.errors import ConversionError
from converters.huggingface.convert import ConvertPretrainedOptions, convert_pretrained
from converters.huggingface.export import ExportOptions, export_pretrained
from converters.huggingface.planner import PretrainedOptions
from converters.huggingface.tables import TABLES
from converters.write import FORMATS, MODES, Report

CONTENT = ("dtype", "scan_layers", "ignore_keys")
FORWARD = ("revision", "download", "token", "to")
BACK = ("family", "dtype", "values", "tokenizer", "shard")


@click.command("convert-hf", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")  # a folder or a name; a missing one is bad input (exit 1), not bad usage
@click.argument("out")
@click.option("--reverse", is_flag=True, help="Back: NAME is a converted checkpoint.")
@click.option("--dtype", help="Cast parameters to float32, bfloat16 or float16.")
@click.option("--scan-layers", is_flag=True, help="Stack the layers on a leading axis.")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit.")
@click.option("--download", is_flag=True, help="Fetch what the cache lacks from the hub.")
@click.option("--token", envvar="HF_TOKEN", help="For models that are not public.")
@click.option(
    "--ignore-key",
    "ignore_keys",
    multiple=True,
    metavar="KEY",
    help="A key of config.json that means nothing for the computation. Repeatable.",
)
@click.option(
    "--to",
    type=click.Choice(FORMATS),
    default="orbax",
    show_default=True,
    help="Format of the output.",
)
@click.option(
    "--family",
    type=click.Choice(list(TABLES)),
    help="With --reverse: model_type of OUT; told by the model otherwise.",
)
@click.option(
    "--set",
    "values",
    multiple=True,
    callback=settings,
    metavar="KEY=VALUE",
    help="With --reverse: a key of OUT/config.json, such as eos_token_id=2. Repeatable.",
)
@click.option(
    "--tokenizer",
    metavar="DIR",
    help="With --reverse: where the tokenizer's files are; the model's own folder otherwise.",
)
@click.option(
    "--shard",
    type=Size(),
    default="5GB",
    show_default=True,
    help="With --reverse: values in one file at most.",
)
@click.option(
    "--verify",
    type=click.Choice(MODES),
    default="full",
    show_default=True,
    help="How much is read back and compared.",
)
@click.option("--memory", type=Size(), default="1GiB", show_default=True, help="Memory to work in.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; one a core otherwise.")
@click.option("--overwrite", is_flag=True, help="Replace OUT if it is a converted checkpoint.")
@click.option("--resume", is_flag=True, help="Go on from an unfinished conversion.")
@click.option("--dry-run", is_flag=True, help="Print the plan; read no tensor.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: the plan as JSON.")
@click.option("--quiet", is_flag=True, help="Print errors only.")
@click.pass_context
def convert_hf(
    ctx: click.Context, name: str, out: str, reverse: bool, as_json: bool, **given: Any
) -> None:
    """Convert the HuggingFace language model NAME to a Flax checkpoint at OUT, or back.

    NAME is a folder with config.json and safetensors, or a model in the HuggingFace cache; OUT is a
    directory to be made. With --reverse, NAME is what convert-hf or convert-paxml made, and OUT a
    folder that AutoModelForCausalLM.from_pretrained opens.
    """
    if as_json and not given["dry_run"]:
        raise click.UsageError("--json goes with --dry-run (OUT/manifest.json is JSON anyway)")
    _refuse_others(ctx, reverse)
    try:
        report = _back(name, out, given) if reverse else _forth(name, out, given)
    except ConversionError as error:
        raise click.ClickException(str(error)) from error
    if report.output is None:
        click.echo(json.dumps(plan_json(report.plan)) if as_json else plan_text(report.plan))
    elif not given["quiet"]:
        click.echo(report_text(report))


def _refuse_others(ctx: click.Context, reverse: bool) -> None:
    """Raise `UsageError` for options of the other direction."""
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if source is not click.core.ParameterSource.COMMANDLINE or name == "dtype":
            continue
        if reverse and name in (*CONTENT, *FORWARD):
            raise click.UsageError(f"{parameter.opts[0]} does not go with --reverse")
        if not reverse and name in BACK:
            raise click.UsageError(f"{parameter.opts[0]} goes with --reverse")


def _forth(name: str, out: str, given: dict[str, Any]) -> Report:
    content = {key: given[key] for key in CONTENT}
    work = {key: value for key, value in given.items() if key not in (*CONTENT, *BACK)}
    options = ConvertPretrainedOptions(plan=PretrainedOptions(**content), **work)
    return convert_pretrained(name, out, options)


def _back(name: str, out: str, given: dict[str, Any]) -> Report:
    left_out = {*CONTENT, *FORWARD} - {*BACK}
    work = {key: value for key, value in given.items() if key not in left_out}
    return export_pretrained(name, out, ExportOptions(**work))
