"""What all conversions share: how they are done, and the way from a plan to a published output."""

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
    """How a conversion is done; what comes out is decided by the plan.

    Attributes:
        to: 'orbax' or 'safetensors'.
        verify: 'full' reads all back, 'sample' a tenth of the leaves, 'none' nothing.
        memory: bytes of memory to work in.
        workers: threads; None for one a core.
        overwrite: replace an existing output.
        resume: go on from an unfinished output.
        dry_run: plan only.
        quiet: show no progress.
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
    """Plan a conversion, write, verify and publish it.

    Args:
        make_plan: looks at the source and says what to write; reads no array.
        output: directory to be made; a local path or a `gs://` or `s3://` URL.
        work: how it is done.
        recorded: the options that decide about the content, for the manifest.
        size: bytes that the output of a plan will take.
        sink: what writes the files; None for the one that `work.to` names.
        processes: those that share the work; None for this one alone.

    Returns:
        What was done.

    Raises:
        ConversionError: what is wrong with the source, the table or the output; nothing is left
            under the output's name.
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
