"""Checkpoints of a run with Orbax: written asynchronously; the last n and the best are kept.

A checkpoint has two items. `state` is nested dicts by the paths of the leaves (`params/...`,
`opt_state/...`). `run` is JSON: the position in the data, best metric, early stopping, and the
`sums` that verify leaves when they are read. It also has the finite metrics of an evaluation of
this state.
"""

import json
import math
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN
from orbax.checkpoint.options import AsyncOptions

from efficientids_flax.digests import digest_of
from efficientids_flax.stored.echoes import without_echoes
from efficientids_flax.train.direction import Mode
from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.state.disk.best import Best
from efficientids_flax.train.state.disk.faults import quiet, writing
from efficientids_flax.train.state.disk.leaves import stored_leaves
from efficientids_flax.train.state.disk.lock import Lock
from efficientids_flax.train.state.disk.manager import Manager
from efficientids_flax.train.state.disk.stored import KEPT, SINCE, SUM, SUMS, StoredSteps
from efficientids_flax.train.state.disk.sums import sums_of
from efficientids_flax.train.state.processes import all_states, is_primary
from efficientids_flax.tree import unflatten


class Checkpoints(StoredSteps):
    """The checkpoints of a directory.

    Attributes:
        directory: contains the checkpoints, each in a directory named by its step.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep_last: int | None = 3,
        keep_best: str | None = None,
        best_mode: Mode | None = None,
        asynchronous: bool = True,
        read_only: bool = False,
        lock: Lock | None = None,
    ) -> None:
        """Open a directory, or create it.

        Args:
            directory: any path or URL that Orbax can write.
            keep_last: how many of the newest checkpoints are kept; None: all.
            keep_best: metric whose best checkpoint is kept too.
            best_mode: whether the least or the greatest value is best; None: as the metric's name
                implies.
            asynchronous: write in the background.
            read_only: do not create or write anything.
            lock: the lock of the directory, if it is held.
        """
        self._lock = lock
        self.directory = epath.Path(directory).absolute()
        self._best = Best(keep_best, best_mode)
        self._failed: list[BaseException] = []
        policies: list[Any] = [LatestN(n=keep_last), self._best]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            enable_async_checkpointing=asynchronous,
            async_options=AsyncOptions(barrier_sync_fn=_meeting(self._failed)),
            best_fn=lambda _: 0.0,  # without it, no metrics are written; `Best` chooses
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,  # else Orbax sets 0 itself, with a warning
        )
        self._open = ExitStack()
        self._open.enter_context(without_echoes())
        # If `close` is never called, as when opening fails, this ends with the object.
        self._end = weakref.finalize(self, self._open.close)
        self._end.atexit = False
        handlers = {"state": ocp.StandardCheckpointHandler(), "run": ocp.JsonCheckpointHandler()}
        with quiet() if read_only else self._writing():
            self._manager = Manager(self.directory, options=options, item_handlers=handlers)

    def save(
        self, state: TrainState, run: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Begin to write a checkpoint; an existing checkpoint of this step is left unchanged.

        Args:
            state: state of the run; it is read before this returns.
            run: JSON values.
            metrics: metrics of an evaluation of this state, for `keep_best`; only finite ones are
                written.

        Raises:
            UnwrittenCheckpoint: this checkpoint, or the one before it, could not be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        found = {name: float(value) for name, value in (metrics or {}).items()}
        leaves = stored_leaves(state)
        run = {**run, SUMS: sums_of(leaves), SINCE: self._best.since}
        if self._best.metric is not None:
            run[KEPT] = {"metric": self._best.metric, "mode": self._best.mode}
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(unflatten(leaves)),  # pyright: ignore[reportCallIssue]
                    run=ocp.args.JsonSave({**run, SUM: _digest(run)}),  # pyright: ignore[reportCallIssue]
                ),
                # Orbax warns of a checkpoint without metrics.
                metrics={name: value for name, value in found.items() if math.isfinite(value)},
            )

    def measure_anew(self, step: int) -> None:
        """Exclude checkpoints up to this step from being the best: their evaluation differed."""
        self._best.since = step

    def keep_on(self, run: Mapping[str, Any]) -> str | None:
        """Continue to keep the best checkpoint of a run whose `keep_best` is not set any more.

        Args:
            run: see `run_of`.

        Returns:
            The metric of the run; None if one is set now, or the run had none.
        """
        kept = run.get(KEPT)
        if self._best.metric is not None or not kept:
            return None
        self._best.follow(kept["metric"], kept["mode"])
        return kept["metric"]

    def set_aside(self, step: int) -> str:
        """Rename the directory of an unreadable step, so that it can be rewritten; the new name."""
        place = self.directory / str(step)
        aside = self.directory / f"damaged_{step}"
        if is_primary():
            if aside.exists():
                aside.rmtree()
            place.rename(aside)
        all_states({})  # the other processes wait for the renaming
        self._manager.reload()
        return aside.name

    def hold(self) -> None:
        """Lock the directory again if the locked one was removed or replaced.

        Raises:
            DirectoryInUse: another run has taken it.
        """
        if self._lock is not None:
            self._lock.renew()

    def check(self) -> None:
        """Raise UnwrittenCheckpoint if a write in the background failed."""
        with self._writing():
            if self._failed:
                raise self._failed[0]
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            UnwrittenCheckpoint: a write failed.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and close the directory; raises as `wait` does."""
        self._end.detach()
        with self._open, self._writing():
            self._manager.close()

    def _writing(self) -> AbstractContextManager[None]:
        def newest() -> int | None:
            found = [int(path.name) for path in self.directory.iterdir() if path.name.isdigit()]
            return max(found, default=None)

        return writing(self.directory, newest)


def _meeting(failed: list[BaseException]) -> Callable[..., None]:
    """A barrier for all processes; a thread whose write failed raises instead of waiting.

    Orbax reports the error when the thread ends. Waiting would deadlock: the other processes wait
    for what this one did not write.

    Args:
        failed: receives the errors.
    """
    wait, owner = ocp.multihost.get_barrier_sync_fn(), threading.get_ident()

    def meet(**given: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and threading.get_ident() != owner:
            failed.append(error)
            raise error
        wait(**given)

    return meet


def _digest(run: Mapping[str, Any]) -> str:
    """Digest of `run` as it will be read: JSON turns tuples into lists, and keys into text."""
    return digest_of(json.loads(json.dumps(run)))
