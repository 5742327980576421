"""Restore a checkpoint, once it is checked to belong to the run; by default the newest readable."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.train.optimizer import with_injected
from efficientids_flax.train.options import CHANGES
from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.state.data_cursor import DataCursor, Source, words_of
from efficientids_flax.train.state.disk.checkpoint import Checkpoints
from efficientids_flax.train.state.disk.faults import CheckpointMismatch, DamagedCheckpoint
from efficientids_flax.train.state.disk.stored import Anew
from efficientids_flax.train.state.fingerprint import (
    OF_DATA,
    OF_MODEL,
    SHOWN,
    Facts,
    RunMismatch,
    differences,
    more,
    refuse,
)
from efficientids_flax.train.state.processes import agreed
from efficientids_flax.tree import flatten

# Allowed changes after which the optimizer's state may have other leaves, and leaves other dtypes.
ANEW = {"frozen", "optimizer", "model"}


@dataclass
class Start:
    """Where a run begins.

    Attributes:
        state: the caller's, or that of a checkpoint.
        cursor: the position in the data; None: there is nothing left to do.
        said: messages for the user.
        warned: warnings for the user.
        changed: allowed differences from the checkpoint.
    """

    state: TrainState
    cursor: DataCursor | None
    said: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)


def restored(
    checkpoints: Checkpoints,
    like: TrainState,
    facts: Facts,
    allowed: tuple[str, ...],
    step: int | None = None,
    *,
    names: tuple[str, ...] = OF_MODEL,
    anew: Anew,
    loads: bool = True,
) -> tuple[TrainState, dict[str, Any], Start]:
    """Restore a checkpoint of this run; without `step`, the newest one that can be read.

    Args:
        checkpoints: checkpoints of the run.
        like: state of a new run, with the wanted shapes and shardings.
        facts: facts of this run.
        allowed: names of facts that may differ.
        step: step of the checkpoint.
        names: names of the facts to compare.
        anew: fills in what the checkpoint lacks for another optimizer.
        loads: whether to read the state; otherwise `like` already is that state.

    Returns:
        (state, what was saved with it, `Start` with messages for the user).

    Raises:
        FileNotFoundError: there is no checkpoint.
        RunMismatch, CheckpointMismatch: the checkpoint is of another run.
        DamagedCheckpoint: the checkpoint cannot be read; without `step`: none can.
    """
    start = Start(like, None)
    steps = [step] if step is not None else checkpoints.steps()[::-1] or [None]
    for number, one in enumerate(steps):
        damage: str | None = None
        found: tuple[TrainState, dict[str, Any]] | None = None
        try:
            run = checkpoints.run_of(one)
            changed = differences(run.get("fingerprint", {}), facts, names)
            said = _refused(checkpoints, like if loads else None, one, changed, allowed)
            how = anew if ANEW.intersection(allowed) else None
            if how and loads and not ANEW & changed.keys() and checkpoints.mismatch(like, one):
                said.append(
                    f"{checkpoints.directory}/{one}: has other leaves or dtypes: allowed, what fits"
                    " stays, and what the optimizer lacks begins anew"
                )
            found = checkpoints.restore(like, one, anew=how) if loads else (like, run)
            if "optimizer" in changed and loads:  # numbers in its state are settings
                numbers = with_injected(found[0].opt_state, like.opt_state)
                found = (found[0].replace(opt_state=numbers), found[1])  # pyright: ignore[reportAttributeAccessIssue]
            start.said += said
            start.changed = set(changed)
        except DamagedCheckpoint as error:
            damage = str(error)
        damage = agreed(damage)
        if damage is None and found is not None:
            where = f"{checkpoints.directory}/{one}"
            if "fingerprint" not in found[1]:
                start.warned.append(_unknown(where, names))
            before = found[1].get("fingerprint", {}).get("frozen", {})
            if other := _replaced(like.frozen, found[0].frozen, before):
                start.warned.append(f"{where}: {other}")
            return *found, start
        start.warned.append(damage or "")
        if number + 1 < len(steps):
            start.warned[-1] += f"; going back to the checkpoint of step {steps[number + 1]}"
    raise DamagedCheckpoint("; ".join(start.warned))


def _refused(
    checkpoints: Checkpoints,
    like: TrainState | None,
    step: int | None,
    changed: Mapping[str, str],
    allowed: tuple[str, ...],
) -> list[str]:
    """`refuse`; where the leaves differ as well, all of them are named."""
    where = f"{checkpoints.directory}/{step}"
    try:
        return refuse(where, changed, allowed)
    except RunMismatch as error:
        if like is None:
            raise
        told = str(error)
    if leaves := checkpoints.mismatch(like, step, parameters_alone=True):
        differ = "; ".join(text for name, text in changed.items() if name in CHANGES)
        told = f"{where}: another run wrote this checkpoint: {differ}"
    elif not (leaves := checkpoints.mismatch(like, step)):
        raise RunMismatch(told)
    raise CheckpointMismatch(f"{told}\n{leaves}")


def _replaced(
    given: Mapping[str, Any], stored: Mapping[str, Any], before: Collection[str]
) -> str | None:
    """A message if frozen parameters differ from the checkpoint; all processes must call it.

    Args:
        given, stored: the frozen parameters.
        before: paths of those that were frozen when it was written; others have been trained.
    """
    one = {path: leaf for path, leaf in flatten(given).items() if path in before}
    other = flatten(stored)
    differ = jax.device_get(_unequal(one, {path: other[path] for path in one}))
    paths = [path for path in one if differ[path]]
    if not paths:
        return None
    return (
        f"frozen: {len(paths)} of the {len(one)} frozen parameters that were given are not those of"
        f" the checkpoint, which stay: {', '.join(paths[:SHOWN])}{more(paths)}; another directory"
        " begins anew with those that were given"
    )


@jax.jit
def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Path -> whether any number of two leaves differs."""
    return {path: jnp.any(leaf != other[path]) for path, leaf in one.items()}


def refuse_model(
    checkpoints: Checkpoints, facts: Facts, allowed: tuple[str, ...], step: int | None
) -> list[str]:
    """Lines to be said of a checkpoint whose parameters are to be read for a model.

    Args:
        checkpoints: of the run.
        facts: of the model, see `model_facts`.
        allowed: what may differ.
        step: which checkpoint; None: the newest.

    Raises:
        RunMismatch: it is of another model, or clustering.
    """
    run = checkpoints.run_of(step)
    where = f"{checkpoints.directory}/{checkpoints.latest_step() if step is None else step}"
    said = refuse(where, differences(run.get("fingerprint", {}), facts, OF_MODEL), allowed)
    return said if "fingerprint" in run else [_unknown(where, OF_MODEL)]


def of_other_model(checkpoints: Checkpoints, facts: Facts, step: int) -> bool:
    """Whether a checkpoint, and so its evaluation, is of another model: an allowed change.

    If it is damaged, that is not known, and the answer is no.

    Args:
        checkpoints: of the run.
        facts: of the model, see `model_facts`.
        step: which checkpoint.
    """
    try:
        then = checkpoints.run_of(step).get("fingerprint", {})
    except DamagedCheckpoint:
        return False
    return bool(differences(then, facts, OF_MODEL))


def refuse_words(
    checkpoints: Checkpoints, source: Source, allowed: tuple[str, ...], step: int | None = None
) -> list[str]:
    """Lines to be said of data that a model is asked about without being trained on it.

    Args:
        checkpoints: of the run.
        source: the data.
        allowed: what may differ.
        step: which checkpoint; None: the newest.

    Raises:
        RunMismatch: its texts became other tokens than those that the model was trained on.
    """
    then = checkpoints.run_of(step)["data"][0].get("facts", {})  # the same of each process
    where = f"{checkpoints.directory}/{checkpoints.latest_step() if step is None else step}"
    words = differences(then, {"tokenizer": words_of(source)}, ("tokenizer",))
    return refuse(where, words, allowed)


def _unknown(where: str, names: tuple[str, ...]) -> str:
    known = [name for name in names if name in CHANGES]
    told = (*known, *OF_DATA) if len(known) > len(OF_MODEL) else known
    return (
        f"{where}: written by a release that did not note what a run is: whether {', '.join(told)}"
        " are the same cannot be checked"
    )
