"""The command `convert`, which is `convert-paxml` too: a PAXml checkpoint becomes a Flax one."""

from pathlib import Path
from typing import Any

import click

from converters.commands.work import cast_dtype, scan_layers, tell, work_of, work_options
from converters.conversion import ConvertOptions
from converters.conversion import convert as run
from converters.errors import ConversionError
from converters.paxml.experiments import listed, table_text
from converters.paxml.forecasters import forecasters_text, listed_forecasters
from converters.plan import PlanOptions
from converters.rules import FAMILIES, read_document
from converters.write import JaxProcesses, OneProcess, Processes
from efficientids_flax.commands import combined, command, echo
from efficientids_flax.commands.options import check_distributed, distributed, set_option, step
from efficientids_flax.tree import flatten

CONTENT = (
    "family",
    "rules",
    "scan_layers",
    "dtype",
    "dequantize",
    "keep_lora",
    "job_files",
    "also",
    "experiment",
    "strict",
)

content_options = combined(
    step,
    click.option("--family", type=click.Choice(FAMILIES),
                 help="Table of rules (default: detected)."),
    click.option("--rules", metavar="FILE", help="A table of your own (TOML or YAML)."),
    scan_layers,
    click.option("--no-optimizer", is_flag=True, help="Leave out the optimizer state."),
    click.option("--raw-optimizer", is_flag=True,
                 help="Keep the optimizer state as PAXml has it."),
    cast_dtype,
    click.option("--dequantize", is_flag=True, help="Dequantize weights to float32."),
    click.option("--keep-lora", is_flag=True,
                 help="Keep a forecaster's LoRA weights separate."),
    click.option("--job-files", metavar="DIR", help="Directory with model_params.txt."),
    click.option("--config", metavar="FILE", help="Configuration values (TOML, YAML or JSON)."),
    set_option("A configuration value, e.g. activation=gelu or beta1=0.9."),
    click.option("--experiment", metavar="NAME",
                 help="Use the settings of a published experiment."),
    click.option("--strict", is_flag=True,
                 help="Fail if a setting that changes activations or logits was assumed."),
    click.option("--also", multiple=True, metavar="CKPT:RULES",
                 help="Take parameters from another checkpoint. Repeatable."),
)  # fmt: skip


@command("convert", mistakes=(ConversionError,))
# Paths or URLs; one that is not there is bad input (exit 1), not bad usage.
@click.argument("ckpt", required=False, metavar="CKPT")
@click.argument("out", required=False, metavar="OUT")
@click.option("--list-experiments", is_flag=True, help="Print the known experiments.")
@content_options
@work_options
@distributed
def convert(
    ckpt: str | None, out: str | None, list_experiments: bool, as_json: bool, **given: Any
) -> None:
    """Convert the PAXml checkpoint CKPT to a Flax checkpoint at OUT.

    CKPT is a job directory, its checkpoints/ folder, a step directory, its state/ item or a FLAX
    file; OUT is a new directory. Both may be gs:// or s3:// URLs.
    """
    if list_experiments:
        told = [*listed(), *listed_forecasters()]
        echo(as_json, told, f"{table_text().rstrip()}\n\n{forecasters_text().rstrip()}")
        return
    if ckpt is None or out is None:
        raise click.UsageError(f"Missing argument '{'CKPT' if ckpt is None else 'OUT'}'.")
    if given["no_optimizer"] and given["raw_optimizer"]:
        raise click.UsageError("--no-optimizer and --raw-optimizer exclude each other")
    check_distributed(given)
    wanted = ConvertOptions(_plan_options(given), step=given["step"], **work_of(given))
    tell(run(ckpt, out, wanted, processes=_processes(given)), as_json)


def _plan_options(given: dict[str, Any]) -> PlanOptions:
    overrides: dict[str, Any] = {}
    if given["config"] is not None:
        overrides = flatten(read_document(Path(given["config"])), separator=".", keep_empty=True)
    return PlanOptions(
        optimizer="none"
        if given["no_optimizer"]
        else "raw"
        if given["raw_optimizer"]
        else "convert",
        overrides=overrides | given["settings"],
        **{name: given[name] for name in CONTENT},
    )


def _processes(given: dict[str, Any]) -> Processes:
    if not given["distributed"]:
        return OneProcess()
    return JaxProcesses.start(given["coordinator"], given["processes"], given["process"])
