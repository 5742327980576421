"""The command `convert-hf`: a HuggingFace language model becomes a Flax checkpoint, or back."""

from typing import Any

import click

from converters.commands.work import cast_dtype, scan_layers, tell, work_of, work_options
from converters.errors import ConversionError
from converters.huggingface import (
    ConvertPretrainedOptions,
    ExportOptions,
    PretrainedOptions,
    convert_pretrained,
    export_pretrained,
)
from converters.huggingface.forecasters import MODEL_TYPE
from converters.huggingface.tables import TABLES
from converters.write import Report
from efficientids_flax.commands import combined, command
from efficientids_flax.commands.options import Size, set_option

CONTENT = ("dtype", "scan_layers", "ignore_keys")
FORWARD = ("revision", "download", "token", "to")
BACK = ("family", "dtype", "settings", "tokenizer", "shard")

content_options = combined(
    click.option("--reverse", is_flag=True, help="Convert back: NAME is a converted checkpoint."),
    cast_dtype,
    scan_layers,
    click.option("--revision", default="main", show_default=True, help="Branch, tag or commit."),
    click.option("--download", is_flag=True, help="Download what the cache lacks."),
    click.option("--token", envvar="HF_TOKEN", help="Access token for private models."),
    click.option("--ignore-key", "ignore_keys", multiple=True, metavar="KEY",
                 help="Ignore a key of config.json that has no effect. Repeatable."),
    click.option("--family", type=click.Choice([*TABLES, MODEL_TYPE]),
                 help="With --reverse: model_type of OUT (default: that of the model)."),
    set_option("With --reverse: a key of OUT/config.json, such as eos_token_id=2."),
    click.option("--tokenizer", metavar="DIR",
                 help="With --reverse: folder of the tokenizer (default: the model's own)."),
    click.option("--shard", type=Size(), default="5GB", show_default=True,
                 help="With --reverse: largest size of a file."),
)  # fmt: skip


@command("convert-hf", mistakes=(ConversionError,))
@click.argument("name")  # a folder or a name; a missing one is bad input (exit 1), not bad usage
@click.argument("out")
@content_options
@work_options
@click.pass_context
def convert_hf(
    ctx: click.Context, name: str, out: str, reverse: bool, as_json: bool, **given: Any
) -> None:
    """Convert the HuggingFace model NAME to a Flax checkpoint at OUT, or back.

    NAME is a folder with config.json and safetensors, or a model in the HuggingFace cache; OUT is a
    new directory. With --reverse, NAME is the output of convert or convert-hf, and OUT a folder
    that AutoModelForCausalLM.from_pretrained opens (TimesFmModelForPrediction for a forecaster).
    """
    _refuse_others(ctx, reverse)
    tell(_back(name, out, given) if reverse else _forth(name, out, given), as_json)


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
    plan = PretrainedOptions(
        dtype=given["dtype"],
        scan_layers=bool(given["scan_layers"]),
        ignore_keys=given["ignore_keys"],
    )
    where = {key: given[key] for key in ("revision", "download", "token")}
    return convert_pretrained(
        name, out, ConvertPretrainedOptions(plan=plan, **where, **work_of(given))
    )


def _back(name: str, out: str, given: dict[str, Any]) -> Report:
    work = {key: value for key, value in work_of(given).items() if key != "to"}
    chosen = {key: given[key] for key in ("family", "dtype", "tokenizer", "shard")}
    return export_pretrained(name, out, ExportOptions(values=given["settings"], **chosen, **work))
