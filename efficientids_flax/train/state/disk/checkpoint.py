"""Checkpoints of a run with Orbax: asynchronous, the last n and the best, checked when restored.

A checkpoint has two items: `state`, nested dicts by the paths of the leaves (`params/...`,
`opt_state/...`), and `run`, JSON: the position in the data, best metric, early stopping, the `sums`
by which what is read is compared with what was written; and the metrics of an evaluation of this
state, those that are finite.
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
from efficientids_flax.train.state.disk.stored import KEPT, SINCE, SUM, SUMS, StoredSteps
from efficientids_flax.train.state.disk.sums import sums_of
from efficientids_flax.train.state.processes import all_states, is_primary
from efficientids_flax.tree import unflatten


class Checkpoints(StoredSteps):
    """The checkpoints of a directory.

    Attributes:
        directory: where they lie, each in a directory named by its step.
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
        """Open a directory, or make it.

        Args:
            directory: any path or URL that Orbax can write.
            keep_last: how many of the newest stay; None: all.
            keep_best: metric whose best checkpoint stays too.
            best_mode: whether the least or the greatest value is best; None: as its name says.
            asynchronous: write in the background.
            read_only: neither make it nor write.
            lock: of the directory.
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
            best_fn=lambda _: 0.0,  # without one no metrics are written; `Best` chooses
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,  # Orbax sets it so, and warns
        )
        self._open = ExitStack()
        self._open.enter_context(without_echoes())
        # A directory that is never closed, as one that could not be opened, ends with the object.
        self._end = weakref.finalize(self, self._open.close)
        self._end.atexit = False
        handlers = {"state": ocp.StandardCheckpointHandler(), "run": ocp.JsonCheckpointHandler()}
        with quiet() if read_only else self._writing():
            self._manager = ocp.CheckpointManager(
                self.directory, options=options, item_handlers=handlers
            )

    def save(
        self, state: TrainState, run: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Begin to write a checkpoint; what is in the step's directory already stays.

        Args:
            state: of the run; read before this returns.
            run: JSON values.
            metrics: of an evaluation of this state, for `keep_best`; those that are finite are
                written.

        Raises:
            UnwrittenCheckpoint: this one, or the one before it.
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
                # Orbax warns of one without.
                metrics={name: value for name, value in found.items() if math.isfinite(value)},
            )

    def measure_anew(self, step: int) -> None:
        """Evaluations up to this step were others: none of them is the best any more."""
        self._best.since = step

    def keep_on(self, run: Mapping[str, Any]) -> str | None:
        """Go on to keep the best checkpoint that a run kept, though it is not asked for any more.

        Args:
            run: see `run_of`.

        Returns:
            The metric; None where one is asked for, or none was.
        """
        kept = run.get(KEPT)
        if self._best.metric is not None or not kept:
            return None
        self._best.follow(kept["metric"], kept["mode"])
        return kept["metric"]

    def set_aside(self, step: int) -> str:
        """Rename a step that cannot be read, so that it is written again; the new name."""
        place = self.directory / str(step)
        aside = self.directory / f"damaged_{step}"
        if is_primary():
            if aside.exists():
                aside.rmtree()
            place.rename(aside)
        all_states({})  # the others wait
        self._manager.reload()
        return aside.name

    def hold(self) -> None:
        """Lock the directory that is there now, if what was locked is gone.

        Raises:
            DirectoryInUse: another run has taken it.
        """
        if self._lock is not None:
            self._lock.renew()

    def check(self) -> None:
        """Raises UnwrittenCheckpoint if a write in the background went wrong."""
        with self._writing():
            if self._failed:
                raise self._failed[0]
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Until everything is written.

        Raises:
            UnwrittenCheckpoint: something is not.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and let go of the directory; raises as `wait` does."""
        self._end.detach()
        with self._open, self._writing():
            self._manager.close()

    def _writing(self) -> AbstractContextManager[None]:
        def newest() -> int | None:
            found = [int(path.name) for path in self.directory.iterdir() if path.name.isdigit()]
            return max(found, default=None)

        return writing(self.directory, newest)


def _meeting(failed: list[BaseException]) -> Callable[..., None]:
    """How all processes wait for each other; a thread whose write went wrong waits for none.

    Orbax tells of it when it is done, and it would wait for others that wait for what it writes.

    Args:
        failed: gets what went wrong.
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
    """Of what is read again: JSON has no tuples, and no keys but texts."""
    return digest_of(json.loads(json.dumps(run)))
