"""The part of `Trainer` that works with files: restore checkpoints, export the model, curves."""

import os
import warnings
from collections.abc import Iterator, Mapping, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optax
from flax import linen as nn
from flax import nnx

from efficientids_flax.backbone import Decoder
from efficientids_flax.core.item_model import ItemModel
from efficientids_flax.stored import (
    ItemNames,
    Origins,
    Prompted,
    save_description,
    save_model,
    training_of,
)
from efficientids_flax.stored.settings import LENGTH
from efficientids_flax.train.history import Rows
from efficientids_flax.train.logs import save_curves, tell
from efficientids_flax.train.optimizer import averaged_params
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.state import (
    Checkpoints,
    KeptState,
    Start,
    TrainState,
    half_precision,
    is_primary,
    locked,
    refuse_used,
    restored,
    run_facts,
    with_optimizer,
)
from efficientids_flax.train.state.fingerprint import OF_MODEL, Facts, model_facts
from efficientids_flax.train.state.restored import ANEW, of_other_model
from efficientids_flax.train.step import NNXBridge, built_to_train
from efficientids_flax.tree import flatten

MODEL = "model"  # the folder of a run's directory that describes its model
NOT_SAVED = (
    "nothing of this run is saved: it has no output directory (--output-dir, checkpoint.dir,"
    " checkpoint_dir)"
)
HALF_KEPT = "a float32 master copy of each is trained, and rounded to it after each step"
HALF_LOST = "updates that are small to them round to nothing (master_weights=True keeps them)"


class RunDirectory:
    """The part of `Trainer` that deals with files.

    Attributes:
        directory: directory of the run; None: the run has none.
        options: options of the run.
        optimizer: the run's optimizer, which may keep averages of the parameters.
        given_model: the model as the caller gave it.
        model: the model as it is trained.
        history: history of the run.
        items: names of the items; None if unknown.
        origins: where the model's settings came from, see `stored.Config`.
        prompt: how histories became training rows; None: as the model's settings say.
    """

    directory: Path | None
    options: TrainingOptions
    optimizer: optax.GradientTransformation
    given_model: nn.Module | nnx.Module
    model: nn.Module | NNXBridge
    history: Rows
    items: ItemNames | None
    origins: Origins = MappingProxyType({})
    prompt: Prompted | None = None
    _shown: Prompted | None
    _longest: int
    _kept: KeptState | None = None
    _described: int = 0  # length in the directory's description
    _said: Set[str] = frozenset()

    def restore(self, state: TrainState, step: int | None = None) -> TrainState:
        """Restore a checkpoint of the directory, with the shardings of this state.

        Args:
            state: from `create_train_state`.
            step: step of the checkpoint; None: the newest.

        Raises:
            FileNotFoundError: there is no checkpoint.
            RunMismatch, CheckpointMismatch: the checkpoint is of another model or clustering.
            DamagedCheckpoint: the checkpoint cannot be read; without `step`: none can.
        """
        with opened(self.directory, self.options, read_only=True) as checkpoints:
            if checkpoints is None:
                raise FileNotFoundError(f"{self.directory}: no checkpoint is there")
            facts = run_facts(self.given_model, self.optimizer, None, state, self.items)
            allowed = self.options.allow_changes
            found, _, start = restored(
                checkpoints, state, facts, allowed, step,
                names=(*OF_MODEL, *ANEW.intersection(allowed)), anew=with_optimizer(self.optimizer),
            )  # fmt: skip
        self._tell(start)
        self._recall_length()
        return found

    def best_step(self) -> int | None:
        """The step of the best checkpoint by `keep_best`, or of the best state in memory."""
        if self.directory is None:
            kept = None if self._kept is None else self._kept.state
            return None if kept is None else int(kept.step)
        with opened(self.directory, self.options, read_only=True) as checkpoints:
            return None if checkpoints is None else checkpoints.best_step()

    def best(self, state: TrainState) -> TrainState:
        """The best state by `keep_best`; `state` itself if `keep_best` is not set.

        Args:
            state: state of the run; the result gets its shardings.

        Returns:
            The best state; if no evaluation was finite, `state`, with a warning.
        """
        refuse_used(state)
        if not self.options.keep_best:
            return state
        step = self.best_step()
        if step is None:
            warnings.warn(no_best(self.options), stacklevel=2)
        if step is None or step == int(state.step):
            return state
        if self.directory is None:
            assert self._kept is not None and self._kept.state is not None
            return self._kept.state
        return self.restore(state, step)

    def export(self, state: TrainState, path: str | os.PathLike[str]) -> None:
        """Write the model that `evaluate` measures, for `load_model`; see `save_model`.

        The step, its metrics, and the form and length of the sequences are stored with it.
        """
        step, length = int(state.step), self._longest or None
        training = {"step": step, LENGTH: length, "metrics": self._metrics(step)}
        model: Any = self.given_model  # save_model refuses kinds it cannot save
        save_model(path, model, self.evaluated_params(state), **self._about(training))

    def _describe(self, facts: Facts, goes_on: bool = True) -> None:
        """Write the model's description to the directory: all that an export needs but parameters.

        Args:
            facts: facts of the run.
            goes_on: whether the run resumes. Then the description that is there may tell of longer
                sequences, and the longest length is kept.
        """
        if self.directory is None or not isinstance(self.given_model, Decoder | ItemModel):
            return
        options, place = self.options, self.directory / MODEL
        if goes_on:
            self._recall_length()
        self._described = self._longest
        training = {
            LENGTH: self._longest or None,
            "model": {name: facts[name] for name in OF_MODEL if name in facts},
            "keep_best": options.keep_best,
            "best_mode": options.best_mode,
            "average": averages(options, self.optimizer),
        }
        save_description(place, self.given_model, **self._about(training))

    def _about(self, training: Mapping[str, Any]) -> dict[str, Any]:
        """What is stored beside a model's configuration."""
        named = {"items": self.items, "origins": self.origins}
        return {**named, "prompt": self.prompt or self._shown, "training": known(training)}

    def _recall_length(self) -> None:
        """The longest sequences so far include those that the directory's description tells of."""
        if self.directory is None or not is_primary():
            return
        place = self.directory / MODEL
        if (place / "config.json").is_file():
            self._longest = max(self._longest, training_of(place).get(LENGTH) or 0)

    def _metrics(self, step: int) -> dict[str, float]:
        """The metrics of an evaluation at a step; empty if there was none, or of another model."""
        found = self.history.evaluated(step)
        with opened(self.directory, self.options, read_only=True) as checkpoints:
            if checkpoints is None or step not in checkpoints.steps():
                return found
            if of_other_model(checkpoints, model_facts(self.given_model), step):
                return {}
            return found or checkpoints.metrics(step)

    def module(self, state: TrainState) -> Any:
        """The model that `evaluate` measures, to be called: `trainer.module(state)(x)`.

        Returns:
            For NNX a new `nnx.Module` in the modes of the given one: call its `eval()` before
            predictions. A Linen module is bound to its variables; fields that put it into training
            mode are switched to evaluation.
            The arrays are those of `state`, and become invalid when that state is trained on.
        """
        variables = {**state.variables, "params": self.evaluated_params(state)}
        if isinstance(self.model, NNXBridge):
            return self.model.module(variables)
        assert isinstance(self.given_model, nn.Module)
        given = self.given_model
        switched = built_to_train(given)
        return (given.clone(**switched) if switched else given).bind(variables)  # pyright: ignore[reportArgumentType]

    def evaluated_params(self, state: TrainState) -> dict[str, Any]:
        """The averages of the parameters if `evaluate_average` says so, else the parameters."""
        refuse_used(state)
        if not averages(self.options, self.optimizer):
            return state.params
        return averaged_params(state.opt_state, state.params)

    def _checkpoints(self) -> AbstractContextManager[Checkpoints | None]:
        return opened(self.directory, self.options)

    def _tell(self, start: Start) -> None:
        """Print where a run starts or resumes, and warnings about it."""
        if not is_primary():
            return
        lines = dict.fromkeys(start.warned, True) | dict.fromkeys(start.said, False)
        for line, warns in lines.items():
            if line not in self._said:  # the best checkpoint is restored at the end: do not repeat
                tell(self.options.progress, line, warns=warns)
        self._said = self._said | lines.keys()
        if start.cursor is None:
            return
        if self.directory is None:
            tell(self.options.progress, NOT_SAVED)
        if halves := flatten(half_precision(start.state.trained)):
            kept = bool(start.state.master)
            dtypes = " and ".join(sorted({str(leaf.dtype) for leaf in halves.values()}))
            told = f"{len(halves)} of the trained parameters are {dtypes}: "
            told += HALF_KEPT if kept else HALF_LOST
            tell(self.options.progress, told, warns=not kept)

    def _plot(self) -> None:
        if self.options.plot and self.directory is not None and is_primary():
            save_curves(self.history, self.directory / "training_curves.png")


def averages(options: TrainingOptions, optimizer: Any) -> bool:
    """Whether to evaluate and export the averages of the parameters."""
    if options.evaluate_average is None:
        return bool(getattr(optimizer, "ema_decay", None))
    return options.evaluate_average


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that are neither None nor an empty dict."""
    return {name: value for name, value in values.items() if value is not None and value != {}}


def no_best(options: TrainingOptions) -> str:
    """Warning text: no evaluation was finite, so no state is the best."""
    return (
        f"keep_best: no evaluation has a finite {options.keep_best}, so there is no best state; the"
        " last one is taken"
    )


@contextmanager
def opened(
    directory: str | Path | None, options: TrainingOptions, read_only: bool = False
) -> Iterator[Checkpoints | None]:
    """The checkpoints of a run's directory, None without one; pending writes finish on exit.

    Args:
        directory: directory of the run; with `read_only`, a missing one counts as None.
        options: decide which checkpoints are kept.
        read_only: do not lock or write; another process may be writing.

    Raises:
        DirectoryInUse: another process writes to the directory, and this one wants to.
        UnwrittenCheckpoint: the last checkpoint could not be written.
    """
    if directory is None or (read_only and not Path(directory).is_dir()):
        yield None
        return
    with nullcontext() if read_only else locked(directory) as lock:
        found = Checkpoints(
            directory,
            lock=lock,
            keep_last=options.max_checkpoints,
            keep_best=options.keep_best,
            best_mode=options.best_mode if options.keep_best else None,
            read_only=read_only,
        )
        try:
            yield found
        finally:
            found.close()
