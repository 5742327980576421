"""Carries a plan out: all leaves written, verified and described, then published under one name."""

import errno
import json
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any

from converters.errors import CheckpointError, ConversionError, OutputError, VerificationError
from converters.manifest import manifest
from converters.plan import Plan
from converters.processes import OneProcess, Processes
from converters.progress import Progress
from converters.storage import StorageError
from converters.write.jobs import Job, Record, Settings, do_job, make_jobs, share
from converters.write.journal import Journal
from converters.write.output import Output
from converters.write.sink import Sink

BUFFERS = 8  # of tile size that one worker needs at most: encoded, decoded, changed, read back ...
MAX_TILE = 64 << 20  # larger tiles gain nothing
MIN_TILE = 64 << 10


def tile_limit(memory: int, workers: int) -> int:
    """Bytes that a tile may hold so that `workers` workers stay within `memory` bytes."""
    return max(min(memory // (BUFFERS * workers), MAX_TILE), MIN_TILE)


def default_workers() -> int:
    """One worker a core that this process may use; two at least, so that I/O overlaps."""
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
        output: where; nothing of its name exists until all is written and verified.
        sink: the format.
        settings: tile size and verification.
        workers: threads.
        resume: go on from an unfinished output of the same plan.
        options: recorded in the manifest.
        progress: told what is done.
        processes: those that share the work; each writes its part, the primary publishes.

    Returns:
        The manifest's record of each leaf, by target (on the primary).

    Raises:
        ConversionError: see the subclasses; the unfinished output is removed if it can be of no
            use, and kept for `resume` if the cause lies outside (a full disk, a lost connection).
    """
    processes = processes or OneProcess()
    fingerprint = plan.fingerprint(settings.limit)
    journal = Journal(output.store)
    primary = processes.index == 0
    error: Exception | None = None
    try:
        if primary:
            found = output.open(resume=resume)
            if not (found and resume and journal.done(fingerprint)):
                journal.begin(fingerprint)
    except ConversionError as failure:
        error = failure
    processes.meet("opened", error)

    records: dict[str, Record] = {}
    error = None
    try:
        done = journal.done(fingerprint)
        left = [leaf for leaf in plan.leaves if leaf.target not in done]
        jobs = share(make_jobs(left), processes.index, processes.count)
        for leaf in plan.leaves if primary else ():
            if leaf.target in done:
                progress(leaf.nbytes)
        _run(jobs, sink, settings, workers, journal, progress)
    except ConversionError as failure:
        error = _explained(failure, output)
    except OSError as failure:
        error = OutputError(f"{output.url}: {failure.strerror or failure}")
    try:
        processes.meet("written", error)
        if primary:
            records = journal.records()
            _finish(plan, output, sink, records, options)
            journal.clear()
            output.publish()
    except ConversionError as failure:
        error = _explained(failure, output)
        if primary and isinstance(error, CheckpointError | VerificationError):
            output.discard()
        output.close()
        raise error from failure.__cause__
    processes.meet("published", None)
    return records


def _run(
    jobs: Sequence[Job],
    sink: Sink,
    settings: Settings,
    workers: int,
    journal: Journal,
    progress: Progress,
) -> None:
    """Do all jobs; the first error stops those that have not begun."""

    def one(job: Job) -> None:
        journal.add(do_job(job, sink, settings, progress))

    with ThreadPoolExecutor(workers, "convert") as pool:
        futures = [pool.submit(one, job) for job in jobs]
        try:
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        failed = [future for future in finished if future.exception()]
        if failed:
            pool.shutdown(wait=True, cancel_futures=True)
            failed[0].result()


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


def _explained(error: ConversionError, output: Output) -> ConversionError:
    """The error as the user should see it: a full disk is told as such."""
    cause = error.__cause__
    full = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, StorageError) and full:
        told = OutputError(
            f"{output.url}: no space left on the disk ({error}). Make room and go on with "
            f"--resume, or remove {output.store.url}."
        )
        told.__cause__ = cause
        return told
    return error
