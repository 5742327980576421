"""Checkpoints of a run with Orbax: asynchronous, the last n and the best, checked when restored.

A checkpoint has two items: `state`, nested dicts by the paths of the leaves (`params/...`,
`opt_state/...`), and `run`, JSON: the position in the data, best metric, early stopping; and the
metrics of an evaluation of this state, those that are finite.
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from efficientids_flax.train.direction import Mode
from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.state.disk.best import Best
from efficientids_flax.train.state.disk.faults import (
    CheckpointMismatch,
    Untold,
    quiet,
    reading,
    writing,
)
from efficientids_flax.train.state.disk.leaves import check_leaves, rebuilt, shape_of, stored_leaves
from efficientids_flax.train.state.processes import all_states, is_primary
from efficientids_flax.tree import flatten, unflatten


class Checkpoints:
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
    ) -> None:
        """Open a directory, or make it.

        Args:
            directory: any path or URL that Orbax can write.
            keep_last: how many of the newest stay; None: all.
            keep_best: metric whose best checkpoint stays too.
            best_mode: whether the least or the greatest value is best; None: as its name says.
            asynchronous: write in the background.
            read_only: neither make it nor write.
        """
        self.directory = epath.Path(directory).absolute()
        self._best = Best(keep_best, best_mode)
        policies: list[Any] = [LatestN(n=keep_last), self._best]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy(policies),
            enable_async_checkpointing=asynchronous,
            best_fn=lambda _: 0.0,  # without one no metrics are written; `Best` chooses
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
            save_interval_steps=0 if read_only else 1,  # Orbax sets it so, and warns
        )
        self._untold = Untold()
        self._untold.begin()
        handlers = {"state": ocp.StandardCheckpointHandler(), "run": ocp.JsonCheckpointHandler()}
        with quiet() if read_only else self._writing():
            self._manager = ocp.CheckpointManager(
                self.directory, options=options, item_handlers=handlers
            )

    def latest_step(self) -> int | None:
        """The newest step that is complete."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """All steps that are complete, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the best metric, of those that are there; None without any."""
        return self._best.step({step: self._manager.metrics(step) for step in self.steps()})

    def best_metric(self) -> float | None:
        """The value at `best_step`."""
        step, metric = self.best_step(), self._best.metric
        return None if step is None or metric is None else self.metrics(step)[metric]

    def metrics(self, step: int) -> dict[str, float]:
        """What `save` got as metrics."""
        found = self._manager.metrics(step) or {}
        return {name: value for name, value in found.items() if math.isfinite(value)}

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
        with self._writing():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(unflatten(stored_leaves(state))),  # pyright: ignore[reportCallIssue]
                    run=ocp.args.JsonSave(dict(run)),  # pyright: ignore[reportCallIssue]
                ),
                # Orbax warns of one without.
                metrics={name: value for name, value in found.items() if math.isfinite(value)},
            )

    def restore(
        self, like: TrainState, step: int | None = None, *, anew: bool = False
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a checkpoint into the shapes, dtypes and places of another state.

        Args:
            like: state of a new run; stays as it is.
            step: which one; None: the newest.
            anew: the optimizer state may differ; what the checkpoint lacks of it is that of `like`.

        Returns:
            (state, what `save` got as `run`).

        Raises:
            FileNotFoundError: there is none.
            CheckpointMismatch: naming the leaves that differ.
            DamagedCheckpoint: it cannot be read.
        """
        step = self._found(step)
        run = self.run_of(step)
        wanted = stored_leaves(like)
        with reading(self.directory / str(step)):
            if anew:
                return rebuilt(like, {**wanted, **self._partly(step, wanted)}), run
            check_leaves(f"{self.directory}/{step}", flatten(self._described(step)), wanted)
            shapes = {path: shape_of(leaf) for path, leaf in wanted.items()}
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardRestore(unflatten(shapes))),  # pyright: ignore[reportCallIssue]
            )
        return rebuilt(like, flatten(restored["state"])), run

    def mismatch(self, like: TrainState, step: int | None = None) -> str | None:
        """What `restore` would say of the leaves; None: they are those of `like`."""
        step = self._found(step)
        where = self.directory / str(step)
        try:
            with reading(where):
                check_leaves(str(where), flatten(self._described(step)), stored_leaves(like))
        except CheckpointMismatch as error:
            return str(error)
        return None

    def run_of(self, step: int | None = None) -> dict[str, Any]:
        """What `save` got as `run`.

        Raises:
            FileNotFoundError: there is no such step.
            DamagedCheckpoint: it cannot be read.
        """
        step = self._found(step)
        with reading(self.directory / str(step)):
            args = ocp.args.Composite(run=ocp.args.JsonRestore())  # pyright: ignore[reportCallIssue]
            return self._manager.restore(step, args=args)["run"]

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

    def check(self) -> None:
        """Raises UnwrittenCheckpoint if a write in the background went wrong."""
        with self._writing():
            self._manager.check_for_errors()

    def restore_params(self, step: int | None = None, average: bool = False) -> dict[str, Any]:
        """The parameters alone, as NumPy arrays, of a model that need not be there.

        Args:
            step: which checkpoint; None: the newest.
            average: the averages of `ema_decay`, in place of the parameters that have one.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: it has no averages.
        """
        step = self._found(step)
        described = self._described(step)
        wanted: dict[str, Any] = {"params": described["params"]}
        if average:
            if "ema" not in (described.get("opt_state") or {}):
                raise ValueError(f"{self.directory}/{step}: has no averages; ema_decay makes them")
            wanted["opt_state"] = {"ema": {"ema": described["opt_state"]["ema"]["ema"]}}
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        with ocp.PyTreeCheckpointer() as reader:
            found = reader.restore(
                self.directory / str(step) / "state",
                args=ocp.args.PyTreeRestore(wanted, restore_args=arguments, partial_restore=True),  # pyright: ignore[reportCallIssue]
            )
        if not average:
            return found["params"]
        averages = flatten(found["opt_state"]["ema"]["ema"])
        return unflatten({**flatten(found["params"]), **averages})

    def wait(self) -> None:
        """Until everything is written.

        Raises:
            UnwrittenCheckpoint: something is not.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and let go of the directory; raises as `wait` does."""
        failed = True
        try:
            with self._writing():
                self._manager.close()
                failed = False
        finally:
            self._untold.end(failed)

    def _writing(self) -> AbstractContextManager[None]:
        def newest() -> int | None:
            found = [int(path.name) for path in self.directory.iterdir() if path.name.isdigit()]
            return max(found, default=None)

        return writing(self.directory, newest)

    def _partly(self, step: int, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """The leaves that there are; those of the optimizer may differ, parameters in dtype.

        Raises:
            CheckpointMismatch: others differ.
        """
        found = flatten(self._described(step))
        there = {
            path: leaf
            for path, leaf in wanted.items()
            if path in found and tuple(found[path].shape) == tuple(leaf.shape)
        }
        needed = {path: leaf for path, leaf in wanted.items() if not path.startswith("opt_state/")}
        check_leaves(f"{self.directory}/{step}", found, needed, shapes_alone=True)
        shapes = unflatten({path: shape_of(leaf) for path, leaf in there.items()})
        arguments = ocp.checkpoint_utils.construct_restore_args(shapes)
        with ocp.PyTreeCheckpointer() as reader:
            restored = reader.restore(
                self.directory / str(step) / "state",
                args=ocp.args.PyTreeRestore(shapes, restore_args=arguments, partial_restore=True),  # pyright: ignore[reportCallIssue]
            )
        return flatten(restored)

    def _found(self, step: int | None) -> int:
        latest = self.latest_step() if step is None else step
        if latest is None or latest not in self._manager.all_steps():
            what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            there = ", ".join(map(str, self.steps())) or "none"
            raise FileNotFoundError(f"{self.directory}: {what}; steps there are: {there}")
        return latest

    def _described(self, step: int) -> dict[str, Any]:
        """Shape and dtype of every leaf of a checkpoint."""
        metadata = self._manager.item_metadata(step)["state"]
        return getattr(metadata, "tree", metadata)
