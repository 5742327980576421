"""The command `convert-hf`: parse, call one function, print."""

import json

import click

from converters.cli import Size
from converters.convert import FORMATS
from converters.errors import ConversionError
from converters.huggingface.convert import ConvertPretrainedOptions, convert_pretrained
from converters.huggingface.planner import PretrainedOptions
from converters.show import plan_json, plan_text, report_text
from converters.verify import MODES


@click.command("convert-hf", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")  # a folder or a name; a missing one is bad input (exit 1), not bad usage
@click.argument("out")
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
def convert_hf(name: str, out: str, as_json: bool, **given: object) -> None:
    """Convert the HuggingFace language model NAME to a Flax checkpoint at OUT.

    NAME is a folder with config.json and safetensors, or a model in the HuggingFace cache; OUT is a
    directory to be made.
    """
    if as_json and not given["dry_run"]:
        raise click.UsageError("--json goes with --dry-run (OUT/manifest.json is JSON anyway)")
    content = {key: given.pop(key) for key in ("dtype", "scan_layers", "ignore_keys")}
    options = ConvertPretrainedOptions(PretrainedOptions(**content), **given)  # type: ignore[arg-type]
    try:
        report = convert_pretrained(name, out, options)
    except ConversionError as error:
        raise click.ClickException(str(error)) from error
    if report.output is None:
        click.echo(json.dumps(plan_json(report.plan)) if as_json else plan_text(report.plan))
    elif not given["quiet"]:
        click.echo(report_text(report))
