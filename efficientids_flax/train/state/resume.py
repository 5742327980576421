"""Where a run starts: at a checkpoint with its position in the data, or at the caller's state.

A checkpoint of another run is refused, see `fingerprint`. Messages for the user are returned, and
printed by the caller.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from efficientids_flax.data.ahead import OtherSeed
from efficientids_flax.train.history import HISTORY
from efficientids_flax.train.optimizer import updates_taken
from efficientids_flax.train.options import CHANGES, TrainingOptions
from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.state.data_cursor import BY_BATCH, DataCursor, DataExhausted, Source
from efficientids_flax.train.state.disk.checkpoint import Checkpoints
from efficientids_flax.train.state.disk.faults import DamagedCheckpoint
from efficientids_flax.train.state.disk.stored import KEPT, TAKEN, Anew
from efficientids_flax.train.state.fingerprint import (
    OF_DATA,
    OF_MODEL,
    SAID,
    Facts,
    RunMismatch,
    differences,
    refuse,
)
from efficientids_flax.train.state.monitor import Monitor
from efficientids_flax.train.state.processes import agreed, all_states, own_state
from efficientids_flax.train.state.restored import Start, refuse_words, restored

# Allowed changes after which evaluations cannot be compared with those before.
MEASURED_BY = {"evaluation", "loss", "tokenizer", *OF_MODEL}


def resume(
    state: TrainState,
    source: Source,
    checkpoints: Checkpoints | None,
    monitor: Monitor,
    options: TrainingOptions,
    facts: Facts,
    num_steps: int,
    anew: Anew,
    known: DataCursor | None = None,
) -> Start:
    """The state and the position in the data to continue from.

    Args:
        state: the caller's state.
        source: the training data, at its start.
        checkpoints: checkpoints of the run; restored if the newest has more steps than `state`.
        monitor: restored from the checkpoint too.
        options: whether to restore, and what may have changed.
        facts: facts of this run, see `run_facts`.
        num_steps: total number of steps of the run.
        anew: fills in what the checkpoint lacks for another optimizer.
        known: cursor of an earlier call; it continues if it reads the same source.

    Raises:
        ValueError: there are checkpoints of another run, and `restore` is off.
        RunMismatch, CheckpointMismatch: they are of another run.
        DamagedCheckpoint: none of them can be read.
    """
    step = int(state.step)
    latest = checkpoints.latest_step() if checkpoints is not None else None
    goes_on = known is not None and known.source is source and step > 0
    here = latest == step and known is not None  # trained so far by the caller's trainer
    if checkpoints is None or latest is None or latest < step or here:
        if checkpoints is not None and latest == step and step > 0:
            monitor.restore(checkpoints.run_of(step)["monitor"])
        start = Start(state, None)
        if step < num_steps:
            start.cursor = known.renewed() if goes_on and known is not None else DataCursor(source)
            if known is not None and step > 0 and not goes_on:
                start.said.append(
                    f"data: another object than up to step {step}, so it is read from its start"
                )
        else:
            start.said.append(f"step {step} of {num_steps} is reached: nothing to train")
        return start
    if not options.restore:
        raise ValueError(
            f"{checkpoints.directory}: holds checkpoints up to step {latest} of another run;"
            " restore=True goes on with it, another checkpoint_dir begins anew"
        )
    return _from_checkpoint(state, source, checkpoints, monitor, options, facts, num_steps, anew)


def _from_checkpoint(
    state: TrainState,
    source: Source,
    checkpoints: Checkpoints,
    monitor: Monitor,
    options: TrainingOptions,
    facts: Facts,
    num_steps: int,
    anew: Anew,
) -> Start:
    """`resume` from a checkpoint."""
    before = checkpoints.steps()
    names = _compared(checkpoints, num_steps, options.monitors)
    found, run, start = restored(
        checkpoints, state, facts, options.allow_changes, names=names,
        anew=anew, loads=before[-1] > int(state.step),
    )  # fmt: skip
    step = int(found.step)
    for damaged in (one for one in before if one > step):
        start.warned.append(f"step {damaged} is kept as {checkpoints.set_aside(damaged)}")
    if step < int(state.step):
        raise DamagedCheckpoint("; ".join(start.warned))
    start.state = found
    where = f"{checkpoints.directory}"
    if not (checkpoints.directory / HISTORY).exists():
        start.warned.append(f"{where}: {HISTORY} is gone: the history begins after step {step}")
    idle = [name for name in facts if name not in (*OF_MODEL, "code")]
    unused = list(differences(run.get("fingerprint", {}), facts, idle).values())
    if not np.array_equal(np.asarray(state.rng), np.asarray(found.rng)):
        unused.append("seed: another one; the random key of the checkpoint goes on")
    if step >= num_steps:
        start.said += refuse_words(checkpoints, source, options.allow_changes, step)
        without = f"; without effect now: {'; '.join(unused)}" if unused else ""
        start.said.append(
            f"{where}: step {step} of {num_steps} is reached already, by an earlier run: nothing is"
            f" trained, its state is given back{without}; a larger number of steps goes on,"
            " another directory begins anew"
        )
        return start
    begins = len(start.said)
    if unused and unused[-1].startswith("seed"):
        start.said.append(unused[-1])
    start.cursor = _at_its_place(source, run, options, f"{where}/{step}", start)
    _go_on_measuring(run, checkpoints, monitor, options, start)
    if not monitor.exhausted:  # otherwise the trainer says why the run has ended
        start.said.insert(begins, f"{where}: goes on from step {step}, to step {num_steps}")
    return start


def _go_on_measuring(
    run: Mapping[str, Any],
    checkpoints: Checkpoints,
    monitor: Monitor,
    options: TrainingOptions,
    start: Start,
) -> None:
    """Go on with the evaluations of a checkpoint; adds to `start` what is to be said of them."""
    where, step = f"{checkpoints.directory}", int(start.state.step)
    if changed := MEASURED_BY & start.changed:
        checkpoints.measure_anew(step)
        if options.monitors and "evaluation" not in changed:
            start.said.append(f"{' and '.join(sorted(changed))}: {CHANGES['evaluation']}")
    else:
        monitor.restore(run["monitor"])
        if options.keep_best and (lost := monitor.lost(checkpoints.best_metric())) is not None:
            left = checkpoints.best_step()
            start.warned.append(
                f"{where}: the best checkpoint, of {monitor.metric} {lost:.6g}, is not there any"
                f" more; the best of those left is {'none' if left is None else f'step {left}'}"
            )
        monitor.begin_at(checkpoints.best_metric())
    before_by = run.get(KEPT, {}).get("metric")
    if before_by and options.keep_best and before_by != monitor.metric:
        start.said.append(
            f"keep_best: was {before_by}, is {monitor.metric}: the checkpoint that is best by the"
            " latter is kept from here on"
        )
    kept = checkpoints.keep_on(run)
    if kept and (best := checkpoints.best_step()) is not None:
        start.said.append(
            f"keep_best: not given, but the run kept the best checkpoint by {kept} before: that of"
            f" step {best} stays"
        )


def _compared(checkpoints: Checkpoints, num_steps: int, monitors: bool) -> tuple[str, ...]:
    """Names of the facts to compare: only those of the model if no step is left to train.

    The evaluation is included if early stopping or `keep_best` depends on it.
    """
    latest = checkpoints.latest_step()
    if latest is None or latest >= num_steps:
        return OF_MODEL
    without = OF_DATA if monitors else (*OF_DATA, "evaluation")
    return (*(name for name in CHANGES if name not in without), *SAID)


def _at_its_place(
    source: Source, run: Mapping[str, Any], options: TrainingOptions, where: str, start: Start
) -> DataCursor:
    """The data at the position where the run stopped; adds what differs to `start`.

    Raises:
        RunMismatch: the data is different.
        DataExhausted: the data is shorter than it was.
    """
    states = run["data"]
    place = own_state(states)
    cursor, ended = DataCursor(source), None
    try:
        cursor.restore(place)
    except DataExhausted as end:
        ended = end
    except (OtherSeed, TypeError, LookupError) as error:
        if "iterator" not in place:
            raise
        if "rows" not in options.allow_changes:
            found = "the place in the data is of another kind of iterator"
            raise RunMismatch(
                f"{where}: rows: {error if isinstance(error, OtherSeed) else found}; another"
                f" directory begins anew, --allow-change rows: {CHANGES['rows']}"
            ) from None
        cursor = DataCursor(source)
        cursor.restore({name: part for name, part in place.items() if name != "iterator"})
    then = place.get("facts", {})
    now = cursor.facts() if ended else cursor.facts_here()
    if "rows" in now and (len(states) != jax.process_count() or "batch_size" in differences(
        then, now, ["batch_size"]
    )):  # fmt: skip
        rows = {name: told for name, told in now["rows"].items() if name not in BY_BATCH}
        now = {**now, "rows": rows}
    problem, changed = None, differences(then, now, OF_DATA)
    start.changed |= changed.keys()
    try:
        start.said += refuse(where, changed, options.allow_changes)
    except RunMismatch as error:
        problem = str(error)
    if problem := agreed(problem):
        raise RunMismatch(problem)
    if ended is not None:
        raise ended
    if len(states) != jax.process_count():
        start.said.append(
            f"{where}: was written by {len(states)} processes, goes on in {jax.process_count()}:"
            " each reads its share of the same batches"
        )
    return cursor


def save(
    state: TrainState,
    cursor: DataCursor,
    checkpoints: Checkpoints,
    monitor: Monitor,
    metrics: Mapping[str, float] | None,
    facts: Facts,
    schedule_steps: int | None = None,
) -> None:
    """Begin to write a checkpoint that `resume` can go on from; all processes must call it."""
    taken = updates_taken(state.opt_state)
    run = {
        TAKEN: None if taken is None else int(taken),
        "data": all_states(cursor.state()),
        "monitor": monitor.state(),
        "fingerprint": facts,
        "schedule_steps": schedule_steps,
    }
    checkpoints.save(state, run, metrics)
