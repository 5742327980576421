"""Reads the checkpoints of a directory, and verifies that they are what was written."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from efficientids_flax.digests import digest_of
from efficientids_flax.train.state.carried import OPTIMIZER, TrainState
from efficientids_flax.train.state.disk.best import Best
from efficientids_flax.train.state.disk.faults import (
    CheckpointMismatch,
    DamagedCheckpoint,
    reading,
)
from efficientids_flax.train.state.disk.leaves import (
    check_leaves,
    precise_source,
    rebuilt,
    shape_of,
    stored_leaves,
    without_master,
)
from efficientids_flax.train.state.disk.manager import Manager
from efficientids_flax.train.state.disk.sums import differing
from efficientids_flax.tree import flatten, unflatten

SUMS, SUM = "sums", "sum"  # keys of `run`: sums of the leaves, and digest of the rest of `run`
TAKEN = "updates"  # key of `run`: the optimizer's count; None: it has none
# (restored state, paths of optimizer leaves that could not be restored, updates) -> complete state
Anew = Callable[[TrainState, Collection[str], int | None], TrainState]
KEPT, SINCE = "kept", "measured_since"  # keys of `run`: metric of the best, and `Best.since`


class StoredSteps:
    """The part of `Checkpoints` that reads.

    Attributes:
        directory: contains the checkpoints, each in a directory named by its step.
    """

    directory: epath.Path
    _manager: Manager
    _best: Best

    def latest_step(self) -> int | None:
        """The newest complete step; None if there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """All complete steps, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The existing step with the best metric; None if there is none."""
        if self._best.metric is not None and not self._best.since:
            self._best.since = self._measured_since()
        return self._best.step({step: self._manager.metrics(step) for step in self.steps()})

    def _measured_since(self) -> int:
        """The value of `since` in the newest checkpoint that can be read."""
        for step in reversed(self.steps()):
            try:
                return self.run_of(step).get(SINCE, 0)
            except DamagedCheckpoint:
                continue
        return 0

    def best_metric(self) -> float | None:
        """The metric at `best_step`; None if there is no best step."""
        step, metric = self.best_step(), self._best.metric
        return None if step is None or metric is None else self.metrics(step)[metric]

    def metrics(self, step: int) -> dict[str, float]:
        """The finite metrics passed to `save`."""
        found = self._manager.metrics(step) or {}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def restore(
        self, like: TrainState, step: int | None = None, *, anew: Anew | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a checkpoint into the shapes, dtypes and shardings of another state.

        Args:
            like: state of a new run; it is not changed.
            step: step of the checkpoint; None: the newest.
            anew: if given, the optimizer state may differ; this function completes what the
                checkpoint lacks of it.

        Returns:
            (state, the `run` passed to `save`).

        Raises:
            FileNotFoundError: there is no such checkpoint.
            CheckpointMismatch: names the leaves that differ.
            DamagedCheckpoint: it cannot be read, or is not what was written.
        """
        step = self._found(step)
        run = self.run_of(step)
        wanted = stored_leaves(like)
        with reading(self.directory / str(step)):
            if anew is not None:
                leaves = self._partly(step, wanted, run)
            else:
                stored = flatten(self._described(step))
                found, wanted = without_master(stored, wanted)
                check_leaves(f"{self.directory}/{step}", found, wanted, flag=True)
                shapes = {path: shape_of(leaf) for path, leaf in wanted.items()}
                restored = self._manager.restore(
                    step,
                    args=ocp.args.Composite(state=ocp.args.StandardRestore(unflatten(shapes))),  # pyright: ignore[reportCallIssue]
                )
                leaves = flatten(restored["state"])
                kept = {path for path, leaf in leaves.items() if leaf.dtype == stored[path].dtype}
                self._check(step, {path: leaves[path] for path in kept}, run)
        optimizer = {path: leaf for path, leaf in wanted.items() if path.startswith(OPTIMIZER)}
        state = rebuilt(like, {**optimizer, **leaves})
        if anew is not None:
            state = anew(state, optimizer.keys() - leaves.keys(), run.get(TAKEN))
        return state, run

    def mismatch(
        self, like: TrainState, step: int | None = None, parameters_alone: bool = False
    ) -> str | None:
        """The mismatch that `restore` would raise; None if the leaves are those of `like`.

        Args:
            like: state of a new run.
            step: step of the checkpoint; None: the newest.
            parameters_alone: as if it were given `anew`.
        """
        step = self._found(step)
        where = self.directory / str(step)
        try:
            with reading(where):
                found = flatten(self._described(step))
                both = without_master(found, stored_leaves(like))
                check_leaves(str(where), *both, parameters_alone=parameters_alone)
        except CheckpointMismatch as error:
            return str(error)
        return None

    def run_of(self, step: int | None = None) -> dict[str, Any]:
        """The `run` passed to `save`.

        Raises:
            FileNotFoundError: there is no such step.
            DamagedCheckpoint: it cannot be read.
        """
        step = self._found(step)
        with reading(self.directory / str(step)):
            args = ocp.args.Composite(run=ocp.args.JsonRestore())  # pyright: ignore[reportCallIssue]
            run = dict(self._manager.restore(step, args=args)["run"])
            wanted = run.pop(SUM, None)  # release 2 and earlier did not write it
            if wanted is not None and wanted != digest_of(run):
                raise ValueError("its position in the run is not what was written")
            return run

    def restore_params(self, step: int | None = None, average: bool = False) -> dict[str, Any]:
        """The parameters alone, as NumPy arrays; the model is not needed.

        Args:
            step: step of the checkpoint; None: the newest.
            average: return the averages of `ema_decay` for the parameters that have one.

        Raises:
            FileNotFoundError: there is no such checkpoint.
            ValueError: it has no averages, though they are requested.
        """
        step = self._found(step)
        described = self._described(step)
        wanted: dict[str, Any] = {name: described[name] for name in ("params", "step")}
        if average:
            if "ema" not in (described.get("opt_state") or {}):
                raise ValueError(f"{self.directory}/{step}: has no averages; ema_decay makes them")
            wanted["opt_state"] = {"ema": {"ema": described["opt_state"]["ema"]["ema"]}}
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        run = self.run_of(step)
        with reading(self.directory / str(step)), ocp.PyTreeCheckpointer() as reader:
            found = reader.restore(
                self.directory / str(step) / "state",
                args=ocp.args.PyTreeRestore(wanted, restore_args=arguments, partial_restore=True),  # pyright: ignore[reportCallIssue]
            )
            self._check(step, flatten(found), run)
        if not average:
            return found["params"]
        leaves = flatten(found["params"])
        for path, mean in flatten(found["opt_state"]["ema"]["ema"]).items():
            leaves[path] = mean.astype(leaves[path].dtype)
        return unflatten(leaves)

    def _check(self, step: int, leaves: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Raise ValueError if leaves are not what was written, or are those of another step."""
        if wrong := differing(leaves, run.get(SUMS, {})):
            raise ValueError(wrong)
        if (held := int(leaves["step"])) != step:
            raise ValueError(
                f"it holds step {held}: somebody renamed or copied it; its name is to be {held}"
            )

    def _partly(
        self, step: int, wanted: Mapping[str, Any], run: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The leaves that the checkpoint has; optimizer state and master copies may be missing.

        Dtypes may differ: parameters and master copies are read from master copies if there are
        some, so that nothing is rounded that need not be.

        Raises:
            CheckpointMismatch: other leaves differ, or have another shape.
        """
        found = flatten(self._described(step))
        check_leaves(f"{self.directory}/{step}", found, wanted, parameters_alone=True)
        source = {path: precise_source(path, found) for path in wanted}
        shapes = {
            source[path]: shape_of(leaf, found[source[path]].dtype)
            for path, leaf in wanted.items()
            if source[path] in found and tuple(found[source[path]].shape) == tuple(leaf.shape)
        }
        arguments = ocp.checkpoint_utils.construct_restore_args(unflatten(shapes))
        with ocp.PyTreeCheckpointer() as reader:
            restored = reader.restore(
                self.directory / str(step) / "state",
                args=ocp.args.PyTreeRestore(  # pyright: ignore[reportCallIssue]
                    unflatten(shapes), restore_args=arguments, partial_restore=True
                ),
            )
        leaves = flatten(restored)
        self._check(step, leaves, run)
        return {
            path: leaves[source[path]].astype(leaf.dtype)
            for path, leaf in wanted.items()
            if source[path] in leaves
        }

    def _found(self, step: int | None) -> int:
        latest = self.latest_step() if step is None else step
        if latest is None or latest not in self._manager.all_steps():
            what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            there = ", ".join(map(str, self.steps())) or "none"
            raise FileNotFoundError(f"{self.directory}: {what}; steps there are: {there}")
        return latest

    def _described(self, step: int) -> dict[str, Any]:
        """Shape and dtype of every leaf of a checkpoint; raises DamagedCheckpoint without them."""
        where = self.directory / str(step)
        with reading(where):
            # Orbax would take a file that it may not read for a missing one.
            (where / "state" / "_METADATA").stat()
            # Not through the manager: that would read the metrics too, which may be damaged.
            metadata: Any = ocp.StandardCheckpointHandler().metadata(where / "state")
        return getattr(metadata, "tree", metadata)
