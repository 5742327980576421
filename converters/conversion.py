"""Converts a PAXml checkpoint: opens it, plans with its family's rules, carries the plan out."""

from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from typing import Any

from converters.paxml import open_checkpoint
from converters.plan import PlanOptions, make_plan
from converters.write import Processes, Report, WorkOptions, carry_out, estimated_size


@dataclass(frozen=True)
class ConvertOptions(WorkOptions):
    """How a PAXml checkpoint is converted.

    Attributes:
        plan: what the output holds.
        step: step to take from a job directory; None: the newest.
    """

    plan: PlanOptions = field(default_factory=PlanOptions)
    step: int | None = None


def convert(
    source: str | PathLike[str],
    output: str | PathLike[str],
    options: ConvertOptions | None = None,
    *,
    processes: Processes | None = None,
    **plan: Any,
) -> Report:
    """Convert a PAXml checkpoint.

    Args:
        source: job directory, its `checkpoints/`, a step directory, its `state/`, or a FLAX file;
            a local path, or a `gs://` or `s3://` URL.
        output: new directory, also a path or URL.
        options: see `ConvertOptions`.
        processes: the processes that share the work; None: this process works alone.
        **plan: fields of `PlanOptions`, as a shortcut.

    Returns:
        A report of what was done.

    Raises:
        ConversionError: the source, the rule table or the output is wrong; nothing is left under
            the output's name.
    """
    options = options or ConvertOptions()
    if plan:
        options = replace(options, plan=PlanOptions(**plan))
    return carry_out(
        lambda: make_plan(open_checkpoint(source, options.step), options.plan),
        output,
        options,
        _recorded(options, source),
        size=lambda made: estimated_size(made, made.source),
        processes=processes,
    )


def convert_paxml_checkpoint(
    paxml_path: str | PathLike[str], output_path: str | PathLike[str], **plan: Any
) -> Report:
    """Convert the checkpoint at `paxml_path` to `output_path`; see `convert`."""
    return convert(paxml_path, output_path, **plan)


def _recorded(options: ConvertOptions, source: str | PathLike[str]) -> dict[str, Any]:
    """The options that decide what the output contains, as recorded in the manifest."""
    content = {
        name: value
        for name, value in vars(options.plan).items()
        if value not in (None, (), {}, False)
    }
    return {"checkpoint": fspath(source), "to": options.to, "verify": options.verify, **content}
