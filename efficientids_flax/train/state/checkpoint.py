"""Checkpoints of a run with Orbax: asynchronous, the last n and the best, checked when restored.

A checkpoint has two items: `state`, nested dicts by the paths of the leaves (`params/...`,
`opt_state/...`), and `run`, JSON: the position in the data, best metric, early stopping; and the
metrics of an evaluation of this state, those that are finite.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from efficientids_flax.train.direction import Mode
from efficientids_flax.train.state.best import Best
from efficientids_flax.train.state.carried import TrainState, split_parameters
from efficientids_flax.tree import flatten, path_of, unflatten

SHOWN = 20  # leaves that an error names


class CheckpointMismatch(ValueError):
    """The checkpoint is of another model, optimizer or freezing."""


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
        handlers = {"state": ocp.StandardCheckpointHandler(), "run": ocp.JsonCheckpointHandler()}
        with _quiet() if read_only else nullcontext():
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
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        found = {name: float(value) for name, value in (metrics or {}).items()}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(unflatten(_stored(state))),  # pyright: ignore[reportCallIssue]
                run=ocp.args.JsonSave(dict(run)),  # pyright: ignore[reportCallIssue]
            ),
            # Orbax warns of one without.
            metrics={name: value for name, value in found.items() if math.isfinite(value)},
        )

    def restore(
        self, like: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a checkpoint into the shapes, dtypes and places of another state.

        Args:
            like: state of a new run; stays as it is.
            step: which one; None: the newest.

        Returns:
            (state, what `save` got as `run`).

        Raises:
            FileNotFoundError: there is none.
            CheckpointMismatch: naming the leaves that differ.
        """
        step = self._found(step)
        wanted = _stored(like)
        self._check(step, wanted)
        shapes = {path: _shape(leaf) for path, leaf in wanted.items()}
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(unflatten(shapes)),  # pyright: ignore[reportCallIssue]
                run=ocp.args.JsonRestore(),
            ),
        )
        return _rebuilt(like, flatten(restored["state"])), restored["run"]

    def run(self, step: int) -> dict[str, Any]:
        """What `save` got as `run`."""
        return self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))[
            "run"
        ]

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
            Exception: what went wrong in the background.
        """
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait, and let go of the directory."""
        self._manager.close()

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

    def _check(self, step: int, wanted: Mapping[str, Any]) -> None:
        found = flatten(self._described(step))
        problems = []
        for name in sorted({*found, *wanted}):
            there, here = (
                f"{list(side[name].shape)} {np.dtype(side[name].dtype)}" if name in side else None
                for side in (found, wanted)
            )
            if there != here:
                problems.append(
                    f"{name}: the checkpoint has {there or 'none'}, this run {here or 'none'}"
                )
        if problems:
            more = len(problems) - SHOWN
            shown = problems[:SHOWN] + ([f"and {more} more"] if more > 0 else [])
            raise CheckpointMismatch(
                "\n  ".join(
                    [
                        f"{self.directory}/{step}: of another model, optimizer or freezing;"
                        f" {len(problems)} leaves differ (another directory, or restore=False,"
                        " begins anew):",
                        *shown,
                    ]
                )
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's warning that a directory to be read is read only."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _stored(state: TrainState) -> dict[str, Any]:
    """Path -> leaf of everything that is stored."""
    tree = {
        "step": state.step,
        "rng": state.rng,
        "params": state.params,
        "opt_state": state.opt_state,
        "model_state": state.model_state,
    }
    return {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _rebuilt(like: TrainState, leaves: Mapping[str, Any]) -> TrainState:
    """A state of the structure of `like` from the stored leaves."""

    def part(name: str, tree: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda keys, _: leaves["/".join(filter(None, [name, path_of(keys)]))], tree
        )

    frozen = flatten(like.frozen)
    trained, kept = split_parameters(part("params", like.params), lambda path: path in frozen)
    return TrainState(
        step=leaves["step"],
        trained=trained,
        frozen=kept,
        opt_state=part("opt_state", like.opt_state),
        model_state=part("model_state", like.model_state),
        rng=leaves["rng"],
    )


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
