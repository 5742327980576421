"""Executes a plan: writes and verifies all leaves, describes them, and publishes the output."""

import errno
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from converters.errors import CheckpointError, ConversionError, OutputError, VerificationError
from converters.plan import Plan
from converters.stores import StorageError
from converters.write.formats import Sink
from converters.write.interrupts import interrupt_at_the_end
from converters.write.jobs import Job, Record, Settings, do_job, make_jobs, share
from converters.write.journal import Journal
from converters.write.manifest import manifest
from converters.write.output import Output
from converters.write.processes import OneProcess, Processes, together
from converters.write.progress import Progress

BUFFERS = 8  # buffers of tile size that one worker needs at most: encoded, decoded, read back ...
MAX_TILE = 64 << 20  # larger tiles gain nothing
MIN_TILE = 64 << 10

T = TypeVar("T")


def tile_limit(memory: int, workers: int) -> int:
    """Bytes that a tile may hold so that `workers` workers stay within `memory` bytes."""
    return max(min(memory // (BUFFERS * workers), MAX_TILE), MIN_TILE)


def default_workers() -> int:
    """One worker per core that this process may use; at least two, so that I/O overlaps."""
    return max(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2, 2)


def execute(
    plan: Plan,
    output: Output,
    sink: Sink,
    settings: Settings,
    *,
    workers: int,
    resume: bool,
    options: dict[str, Any],
    progress: Progress,
    processes: Processes | None = None,
) -> dict[str, Record]:
    """Write a plan's leaves to an output and publish it.

    Args:
        plan: what to write.
        output: where to write; its name does not exist until all leaves are written and verified.
        sink: the format.
        settings: tile size and verification.
        workers: number of threads.
        resume: continue an unfinished output of the same plan.
        options: recorded in the manifest.
        progress: called with the bytes that are done.
        processes: the processes that share the work; each writes its part, the primary publishes.

    Returns:
        The manifest's record of each leaf, by target; empty on processes other than the primary.

    Raises:
        ConversionError: see the subclasses. The unfinished output is removed if it is of no use,
            and kept for `resume` if the cause is external (a full disk, a lost connection).
    """
    processes = processes or OneProcess()
    fingerprint = plan.fingerprint(settings.limit)
    journal = Journal(output.store)
    primary = processes.index == 0

    def open_output() -> None:
        if not primary:
            return
        if output.open(resume=resume and journal.begun()):
            journal.done(fingerprint)  # raises if the output was begun with another plan
        else:
            journal.begin(fingerprint)

    def write() -> None:
        for leaf in plan.leaves if primary else ():
            if leaf.target in done:
                progress(leaf.nbytes)
        jobs = make_jobs([leaf for leaf in plan.leaves if leaf.target not in done])
        mine = share(jobs, processes.index, processes.count)
        _run(mine, sink, settings, workers, journal, progress)

    def publish() -> dict[str, Record]:
        if not primary:
            return {}
        records = journal.records()
        _finish(plan, output, sink, records, options)
        journal.clear()
        output.publish()
        return records

    try:
        together(processes, "opened", _explaining(open_output, output))
        # Every process reads the journal before any of them writes, so that all divide the same
        # jobs.
        done = together(processes, "begun", lambda: journal.done(fingerprint))
        together(processes, "written", _explaining(write, output))
        return together(processes, "published", _explaining(publish, output))
    except ConversionError as error:
        if primary and isinstance(error, CheckpointError | VerificationError):
            output.discard()
        raise
    finally:
        output.close()


def _run(
    jobs: Sequence[Job],
    sink: Sink,
    settings: Settings,
    workers: int,
    journal: Journal,
    progress: Progress,
) -> None:
    """Do all jobs; after the first error or Ctrl-C, each job stops at its next tile."""
    stopping = False  # not an Event: a signal handler must not wait for the Event's lock

    def stop() -> None:
        nonlocal stopping
        stopping = True

    def told(nbytes: int) -> None:
        if stopping:
            raise _Stopped
        progress(nbytes)

    def one(job: Job) -> None:
        try:
            journal.add(do_job(job, sink, settings, told))
        except BaseException:
            stop()
            raise

    with interrupt_at_the_end(stop), ThreadPoolExecutor(workers, "convert") as pool:
        futures = [pool.submit(one, job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop()
            pool.shutdown(cancel_futures=True)
    errors = [future.exception() for future in futures if not future.cancelled()]
    for error in errors:  # raise the cause, not the exceptions of the jobs that it stopped
        if error is not None and not isinstance(error, _Stopped):
            raise error


class _Stopped(Exception):
    """Another job failed, or Ctrl-C was pressed; this job stops too."""


def _finish(
    plan: Plan, output: Output, sink: Sink, records: dict[str, Record], options: dict[str, Any]
) -> None:
    missing = [leaf.target for leaf in plan.leaves if leaf.target not in records]
    if missing:
        raise VerificationError(f"{len(missing)} leaves were not written, such as {missing[0]}")
    sink.finish(list(plan.leaves))
    about = manifest(plan, records, options)
    output.store.write("config.json", json.dumps(plan.config, indent=2).encode())
    output.store.write("manifest.json", json.dumps(about, indent=1).encode())


def _explaining(action: Callable[[], T], output: Output) -> Callable[[], T]:
    """`action`, with errors of the output's disk turned into `OutputError`."""

    def explained() -> T:
        try:
            return action()
        except StorageError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutputError(
                    f"{output.url}: no space left on the disk ({error}). Make room and go on with "
                    f"--resume, or remove {output.store.url}."
                ) from cause
            raise
        except OSError as error:
            raise OutputError(f"{output.url}: {error.strerror or error}") from error

    return explained
