"""What all conversions share: their options, and the steps from a plan to a published output."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from converters.errors import OutputError
from converters.plan import Plan
from converters.stores import Store
from converters.write.execute import default_workers, execute, tile_limit
from converters.write.formats import OrbaxSink, SafetensorsSink, Sink
from converters.write.jobs import Record, Settings
from converters.write.output import Output
from converters.write.processes import OneProcess, Processes, together
from converters.write.progress import shown
from converters.write.verify import MODES

GIB = 1 << 30
SINKS: Mapping[str, Callable[[Store, Plan], Sink]] = {
    "orbax": lambda store, plan: OrbaxSink(store),
    "safetensors": lambda store, plan: SafetensorsSink(store, plan.leaves),
}
FORMATS = tuple(SINKS)


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    """How a conversion is done; the plan decides what it produces.

    Attributes:
        to: 'orbax' or 'safetensors'.
        verify: 'full' reads back all leaves, 'sample' a tenth of them, 'none' nothing.
        memory: bytes of memory to work in.
        workers: number of threads; None: one per core.
        overwrite: replace an existing output.
        resume: continue an unfinished output.
        dry_run: only make the plan.
        quiet: do not show progress.
    """

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
        output: path or URL of the output; None for a dry run.
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
        """Number of NaN and infinite values in each leaf that has any."""
        counts = {target: record["nonfinite"] for target, record in self.records.items()}
        return {target: n for target, n in counts.items() if isinstance(n, int) and n}


def carry_out(
    make_plan: Callable[[], Plan],
    output: str | PathLike[str],
    work: WorkOptions,
    recorded: Mapping[str, Any],
    *,
    size: Callable[[Plan], int] = lambda plan: plan.nbytes,
    sink: Callable[[Store, Plan], Sink] | None = None,
    processes: Processes | None = None,
) -> Report:
    """Plan a conversion, write its output, verify and publish it.

    Args:
        make_plan: looks at the source and says what to write; reads no array.
        output: directory to be made; a local path or a `gs://` or `s3://` URL.
        work: how it is done.
        recorded: the options that affect the content, for the manifest.
        size: estimates the bytes that the output of a plan will take.
        sink: makes what writes the files; None: the format that `work.to` names.
        processes: the processes that share the work; None: this process works alone.

    Returns:
        A report of what was done.

    Raises:
        ConversionError: the source, the rule table or the output is wrong; nothing is left under
            the output's name.
    """
    started = time.monotonic()
    if work.verify not in MODES or work.to not in FORMATS:
        raise OutputError(
            f"verify is one of {', '.join(MODES)} and the format one of {', '.join(FORMATS)}"
        )
    processes = processes or OneProcess()

    def prepare() -> tuple[Plan, tuple[Output, Sink] | None]:
        place = None if work.dry_run else Output(output, overwrite=work.overwrite)
        plan = make_plan()
        if place is None:
            return plan, None
        place.check_space(size(plan))
        return plan, (place, (sink or SINKS[work.to])(place.store, plan))

    plan, target = together(processes, "planned", prepare)
    if target is None:
        return Report(plan, None, {}, time.monotonic() - started)
    place, chosen = target
    workers = work.workers or default_workers()
    with shown(plan.nbytes, quiet=work.quiet) as progress:
        records = execute(
            plan,
            place,
            chosen,
            Settings(tile_limit(work.memory, workers), work.verify),
            workers=workers,
            resume=work.resume,
            options=dict(recorded),
            progress=progress,
            processes=processes,
        )
    return Report(plan, place.url, records, time.monotonic() - started)
