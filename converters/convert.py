"""The whole flow: open a checkpoint, plan, write, verify, publish."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

from converters.errors import OutputError
from converters.execute import default_workers, execute, tile_limit
from converters.paxml.checkpoint import open_checkpoint
from converters.plan import Plan
from converters.planner import PlanOptions, make_plan
from converters.processes import OneProcess, Processes, together
from converters.progress import shown
from converters.verify import MODES
from converters.write.estimate import estimated_size
from converters.write.jobs import Record, Settings
from converters.write.orbax import OrbaxSink
from converters.write.output import Output
from converters.write.safetensors import SafetensorsSink
from converters.write.sink import Sink

GIB = 1 << 30
FORMATS = ("orbax", "safetensors")


@dataclass(frozen=True)
class ConvertOptions:
    """How a conversion is done; what comes out is decided by `PlanOptions`.

    Attributes:
        plan: what the output holds.
        step: step to take from a job directory; None for the newest.
        to: 'orbax' or 'safetensors'.
        verify: 'full' reads all back, 'sample' a tenth of the leaves, 'none' nothing.
        memory: bytes of memory to work in.
        workers: threads; None for one a core.
        overwrite: replace an existing output.
        resume: go on from an unfinished output.
        dry_run: plan only.
        quiet: show no progress.
    """

    plan: PlanOptions = field(default_factory=PlanOptions)
    step: int | None = None
    to: str = "orbax"
    verify: str = "full"
    memory: int = GIB
    workers: int | None = None
    overwrite: bool = False
    resume: bool = False
    dry_run: bool = False
    quiet: bool = True


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        plan: what was planned.
        output: where it went; None for a dry run.
        records: the manifest's record of each leaf, by target; empty for a dry run and on processes
            other than the primary.
        seconds: wall time.
    """

    plan: Plan
    output: str | None
    records: Mapping[str, Record]
    seconds: float

    @property
    def nonfinite(self) -> dict[str, int]:
        """Leaves that hold NaN or infinite values, and how many."""
        counts = {target: record["nonfinite"] for target, record in self.records.items()}
        return {target: n for target, n in counts.items() if isinstance(n, int) and n}


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
            a local path or a `gs://` or `s3://` URL.
        output: directory to be made, likewise.
        options: see `ConvertOptions`.
        processes: those that share the work; None for this one alone.
        **plan: fields of `PlanOptions`, as a short way to give them.

    Returns:
        What was done.

    Raises:
        ConversionError: what is wrong with the source, the table or the output; nothing is left
            under the output's name.
    """
    started = time.monotonic()
    options = options or ConvertOptions()
    if plan:
        options = ConvertOptions(**{**vars(options), "plan": PlanOptions(**plan)})
    if options.verify not in MODES or options.to not in FORMATS:
        raise OutputError(
            f"verify is one of {', '.join(MODES)} and the format one of {', '.join(FORMATS)}"
        )
    processes = processes or OneProcess()

    def prepare() -> tuple[Plan, tuple[Output, Sink] | None]:
        place = None if options.dry_run else Output(output, overwrite=options.overwrite)
        plan = make_plan(open_checkpoint(source, options.step), options.plan)
        if place is None:
            return plan, None
        place.check_space(estimated_size(plan, plan.source))
        if options.to == "safetensors":
            return plan, (place, SafetensorsSink(place.store, plan.leaves))
        return plan, (place, OrbaxSink(place.store))

    made, target = together(processes, "planned", prepare)
    if target is None:
        return Report(made, None, {}, time.monotonic() - started)
    place, sink = target
    workers = options.workers or default_workers()
    limit = tile_limit(options.memory, workers)
    with shown(made.nbytes, quiet=options.quiet) as progress:
        records = execute(
            made,
            place,
            sink,
            Settings(limit, options.verify),
            workers=workers,
            resume=options.resume,
            options=_recorded(options, source),
            progress=progress,
            processes=processes,
        )
    return Report(made, place.url, records, time.monotonic() - started)


def convert_paxml_checkpoint(
    paxml_path: str | PathLike[str], output_path: str | PathLike[str], **plan: Any
) -> Report:
    """Convert the checkpoint at `paxml_path` to `output_path`; see `convert`."""
    return convert(paxml_path, output_path, **plan)


def _recorded(options: ConvertOptions, source: str | PathLike[str]) -> dict[str, Any]:
    """The options that decide about the content, as the manifest has them."""
    content = {
        name: value
        for name, value in vars(options.plan).items()
        if value not in (None, (), {}, False)
    }
    return {"checkpoint": fspath(source), "to": options.to, "verify": options.verify, **content}
