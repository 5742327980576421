"""Training by epochs over arrays: validates each epoch, stops early, tests at the end."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import linen as nn
from flax import nnx

from efficientids_flax.config.record import Record, positive
from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.optimizer import CURVES, KINDS
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.run.calls import TrainingResult, run_training
from efficientids_flax.train.run.config import OptimizerSection, RunConfig
from efficientids_flax.train.run.optimizer import newest_run

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class PipelineConfig(Record):
    """An epoch-based run.

    Attributes:
        name: a label for the reader; it has no effect.
        batch_size, num_epochs: rows of a batch; passes over the training data.
        checkpoint_dir, save_frequency: directory of checkpoints; epochs between them.
        scheduler_type, total_steps: schedule of the learning rate and its length; None: constant,
            and all steps of the run.
        early_stopping_patience: epochs without a better validation loss before training stops;
            None: it never stops early.
        keep_best: test and return the state of the epoch with the least validation loss, and keep
            its checkpoint, or a copy in memory if there is no directory.
        seed: seed of the initial parameters and of the shuffling.

    Other attributes are as in `OptimizerSection`. Those that the chosen optimizer or schedule does
    not take are ignored, so that changing `optimizer_type` alone is enough to switch.
    """

    name: str = "training"
    batch_size: int = 32
    num_epochs: int = 10
    learning_rate: float = 1e-3
    optimizer_type: str = "adam"
    checkpoint_dir: str | None = None
    save_frequency: int = 1
    scheduler_type: str | None = None
    warmup_steps: int = 0
    total_steps: int | None = None
    decay_steps: int | None = None
    decay_rate: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    weight_decay: float = 0.0
    momentum: float | None = None
    clip_norm: float | None = None
    early_stopping_patience: int | None = None
    keep_best: bool = True
    seed: int = 0

    def problems(self) -> Collection[str]:
        """Counts and rates are positive."""
        return positive(
            self, "batch_size", "num_epochs", "learning_rate", "save_frequency", "total_steps",
            "early_stopping_patience",
        )  # fmt: skip


def train_epochs(
    config: PipelineConfig,
    model: nn.Module | nnx.Module,
    train_data: Arrays,
    val_data: Arrays | None = None,
    test_data: Arrays | None = None,
    *,
    loss_fn: Callable[..., Any] | None = None,
    **options: Any,
) -> TrainingResult:
    """Train for some epochs with `Trainer`; rows are shuffled in each.

    Args:
        config: configuration of the run.
        model, loss_fn: see `Trainer`.
        train_data, val_data, test_data: name -> [N, ...]; training drops the last rows of an epoch
            that do not fill a batch, validation and test do not.
        **options: see `TrainingOptions`.

    Returns:
        `history` has a dict per step, with `eval_...` at the end of each epoch. `test` is measured
        at the end, without dropout, for `state`: that of the best epoch with `keep_best`, else the
        last.
    """
    size = config.batch_size
    train = ShuffledBatches(train_data, size, seed=config.seed)
    epoch = len(train)
    made = TrainingOptions.from_dict(
        {
            "log_every": max(epoch // 10, 1),
            "eval_every": epoch,
            "save_every": config.save_frequency * epoch,
            "keep_best": "eval_loss" if config.keep_best and val_data is not None else None,
            "early_stopping_patience": config.early_stopping_patience,
            **options,
        }
    )
    run = RunConfig(
        model={"module": model},
        optimizer=OptimizerSection(
            learning_rate=config.learning_rate,
            optimizer_type=config.optimizer_type,
            schedule_type=config.scheduler_type or "constant",
            warmup_steps=config.warmup_steps,
            total_steps=config.total_steps,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
            **_used(config),
        ),
        data={
            "train_iter_fn": train,
            "eval_iter_fn": _in_order(val_data, size, "val_data"),
            "test_iter_fn": _in_order(test_data, size, "test_data"),
        },
        num_steps=_steps(train, config.num_epochs, config.checkpoint_dir, made),
        seed=config.seed,
        mesh=None,
        options=made,
        directory=config.checkpoint_dir,
        loss_fn=loss_fn,
    )
    return run_training(run)


def _used(config: PipelineConfig) -> dict[str, Any]:
    """The fields that the chosen optimizer and schedule take."""
    kind, curve = KINDS.get(config.optimizer_type), CURVES.get(config.scheduler_type or "constant")
    taken = {*(kind.options if kind else ()), *(curve.takes if curve else ())}
    names = ("beta1", "beta2", "momentum", "decay_steps", "decay_rate")
    return {name: getattr(config, name) for name in names if name in taken}


def _steps(
    batches: ShuffledBatches, epochs: int, directory: str | None, options: TrainingOptions
) -> int:
    """Steps of so many epochs, with those of a checkpoint, which may have had other batches."""
    run, step = newest_run(directory, options)
    place = run["data"][0].get("iterator") or {} if run else {}
    if "rows" not in place or "epoch" not in place:
        return epochs * len(batches)
    left = (batches.rows - place["rows"]) // batches.batch_size
    return step + left + (epochs - 1 - place["epoch"]) * len(batches)


def _in_order(arrays: Arrays | None, batch_size: int, name: str) -> ShuffledBatches | None:
    if arrays is None:
        return None
    rows = len(next(iter(arrays.values())))
    if not rows:
        raise ValueError(f"{name}: has no rows; give some, or leave {name} out")
    return ShuffledBatches(
        arrays, min(batch_size, rows), shuffle=False, drop_remainder=False, epochs=1
    )
