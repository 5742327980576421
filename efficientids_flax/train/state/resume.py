"""Where a run begins: at a checkpoint and its place in the data, or where the caller stands."""

from collections.abc import Mapping
from typing import Any

from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.state.checkpoint import Checkpoints
from efficientids_flax.train.state.data_cursor import DataCursor, DataExhausted, Source
from efficientids_flax.train.state.monitor import Monitor
from efficientids_flax.train.state.processes import all_states, own_state


def resume(
    state: TrainState,
    source: Source,
    checkpoints: Checkpoints | None,
    monitor: Monitor,
    restore: bool,
    known: DataCursor | None = None,
) -> tuple[TrainState, DataCursor]:
    """The state and the place in the data to go on from.

    Args:
        state: of the caller.
        source: the training data, at its start.
        checkpoints: of the run; one that is further than `state` is restored.
        monitor: gets what the checkpoint knows of it.
        restore: whether to restore.
        known: cursor of an earlier call; goes on if it reads the same source.

    Raises:
        ValueError: there are checkpoints of another run, and `restore` is off.
        CheckpointMismatch: they are of another model.
    """
    step = int(state.step)
    latest = checkpoints.latest_step() if checkpoints is not None else None
    if checkpoints is None or latest is None or latest <= step:
        if checkpoints is not None and latest == step and step > 0:
            monitor.restore(checkpoints.run(step)["monitor"])
        goes_on = known is not None and known.source is source and step > 0
        return state, known if goes_on and known is not None else DataCursor(source)
    if not restore:
        raise ValueError(
            f"{checkpoints.directory}: holds checkpoints up to step {latest} of another run;"
            " restore=True goes on with it, another checkpoint_dir begins anew"
        )
    state, run = checkpoints.restore(state)
    cursor = DataCursor(source)
    cursor.restore(own_state(run["data"]))
    monitor.restore(run["monitor"])
    monitor.begin_at(checkpoints.best_metric())
    return state, cursor


def save(
    state: TrainState,
    cursor: DataCursor,
    checkpoints: Checkpoints,
    monitor: Monitor,
    metrics: Mapping[str, float] | None,
) -> None:
    """Begin to write a checkpoint that `resume` can go on from; all processes must call it."""
    run = {"data": all_states(cursor.state()), "monitor": monitor.state()}
    checkpoints.save(state, run, metrics)


class PeekedCursor(DataCursor):
    """A cursor whose next batch has been looked at.

    Attributes:
        batch: the next batch.
    """

    def __init__(self, cursor: DataCursor) -> None:
        """Look at the next batch.

        Raises:
            ValueError: there is none.
        """
        self._cursor, self._waiting = cursor, True
        try:
            self.batch: Any = next(cursor)
        except DataExhausted as end:
            raise ValueError(f"train_dataset: {end}; there is none to train on") from None

    def __next__(self) -> Any:
        if self._waiting:
            self._waiting = False
            return self.batch
        return next(self._cursor)
