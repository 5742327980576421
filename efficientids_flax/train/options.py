"""Options of a run: logging, evaluation, checkpoints, precision, early stopping."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal

from efficientids_flax.config.record import Record, unknown_key
from efficientids_flax.train.direction import Mode, mode_problems, settled_mode

# What must be unchanged when a run resumes -> what happens to a change that `allow_changes` names.
CHANGES: Mapping[str, str] = {
    "clustering": "the parameters stay as they are, and stand for other items",
    "catalogue": "the parameters stay, and stand for the new items; all must have the same shapes",
    "model": "the parameters stay, in its dtypes, and the model has its new settings",
    "rows": "the run goes on at the same place of the new rows",
    "batch_size": "the run goes on after the rows that were read",
    "tokenizer": "the run goes on with the words of the new one",
    "frozen": "the parameters stay, and those that are trained now begin without moments",
    "optimizer": "its state stays where it has the same leaves, and begins anew where not",
    "schedule": "the learning rate is from then on that of the new schedule",
    "loss": "the parameters and the optimizer's state stay, and follow the new loss",
    "evaluation": "evaluations before it are no longer compared with: the next one is the best",
}


ItemUpdates = Literal["exact", "lazy", "dense"]


@dataclass(frozen=True)
class TrainingOptions(Record):
    """Options of `Trainer`; counts are steps.

    Attributes:
        log_every, eval_every, save_every: log, evaluate, save every so many steps. 0 for
            `eval_every` or `save_every`: never (but the last step is always saved). `eval_every`
            None: as `save_every`.
        num_eval_batches: batches of an evaluation during training; None: all. The final test and
            the command `evaluate` always use all.
        scoring: what a recommender's evaluation ranks by. 'log_probs': log-probabilities of items,
            with words in the denominator, as in `recommend`; 'original': as PAXml's evaluation.
        exclude_seen: exclude the items of the input up to a label from its ranking. (Items in the
            batch's field `exclude`, int [B, X], are always excluded.)
        evaluate_average: evaluate, test and export the moving averages of the parameters;
            None: if `create_optimizer` was given an `ema_decay`.
        max_checkpoints: how many of the newest checkpoints to keep; None: all.
        keep_best: an evaluation metric such as 'eval_loss'; its best checkpoint is kept too, and is
            saved as soon as it is found. Without a directory it is kept in memory.
        best_mode: 'min' or 'max'; None: derived from the metric's name, which works for losses,
            accuracies and ranking metrics.
        restore: resume from the newest checkpoint of the directory.
        allow_changes: what may differ from the run that wrote the checkpoint, see `CHANGES`.
        early_stopping_patience: end the run after this many evaluations without a better
            `keep_best` (default 'eval_loss'); None: never.
        early_stopping_min_delta: how large an improvement has to be to count.
        master_weights: keep a float32 copy of trained parameters in half precision, which the
            optimizer updates; without one, small updates are rounded away.
        use_mixed_precision: compute in bfloat16; parameters and optimizer stay float32.
        use_remat: recompute activations in the backward pass.
        gradient_accumulation_steps: parts of each batch, computed one after another.
        item_updates: which rows of the item table a step updates. A batch touches the items of its
            input, and the members of its labels' clusters. 'exact': only the touched rows, if these
            are few and the optimizer leaves all others unchanged anyway ('sgd' without momentum and
            decay); else all rows. 'lazy': only the touched rows, with any optimizer that works row
            by row; other rows do not move and their moments do not decay until a batch touches
            them. 'dense': all rows.
        frozen_dtype: dtype of frozen parameters; None: unchanged.
        on_nonfinite: for a step whose loss or gradient is not finite: 'stop' ends the run and
            names what became non-finite first; 'skip' skips the step, as PAXml does.
        enable_profiling, profile_steps: write a profiler trace of `profile_steps` steps.
        peak_flops: peak FLOP/s of all devices, for the utilisation; None: known from the kind of
            device.
        progress: display on standard error.
        tensorboard: write event files beside the checkpoints.
        wandb_project: Weights & Biases project to log to.
        plot: draw training curves at the end, if matplotlib is installed.
    """

    log_every: int = 10
    eval_every: int | None = None
    save_every: int = 500
    num_eval_batches: int | None = None
    scoring: Literal["log_probs", "original"] = "log_probs"
    exclude_seen: bool = False
    evaluate_average: bool | None = None
    max_checkpoints: int | None = 3
    keep_best: str | None = None
    best_mode: Mode | None = None
    restore: bool = True
    allow_changes: tuple[str, ...] = ()
    early_stopping_patience: int | None = None
    early_stopping_min_delta: float = 0.0
    master_weights: bool = True
    use_mixed_precision: bool = False
    use_remat: bool = False
    gradient_accumulation_steps: int = 1
    item_updates: ItemUpdates = "exact"
    frozen_dtype: Literal["bfloat16", "float16", "float32"] | None = None
    on_nonfinite: Literal["stop", "skip"] = "stop"
    enable_profiling: bool = False
    profile_steps: int = 10
    peak_flops: float | None = None
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    tensorboard: bool = True
    wandb_project: str | None = None
    plot: bool = True

    def problems(self) -> Collection[str]:
        """One sentence for each option out of range."""
        found = [
            f"allow_changes: {unknown_key(name, CHANGES)} (there are {', '.join(CHANGES)})"
            for name in self.allow_changes
            if name not in CHANGES
        ]
        for name, least in (
            ("log_every", 1), ("eval_every", 0), ("save_every", 0), ("num_eval_batches", 1),
            ("max_checkpoints", 1), ("early_stopping_patience", 1),
            ("gradient_accumulation_steps", 1), ("profile_steps", 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                found.append(f"{name}: expected at least {least}, found {value}")
        if self.early_stopping_min_delta < 0:
            found.append(
                f"early_stopping_min_delta: expected at least 0, found"
                f" {self.early_stopping_min_delta}"
            )
        if self.monitors:
            found += mode_problems(self.monitored, self.best_mode)
        return found

    @property
    def monitors(self) -> bool:
        """Whether early stopping or the best checkpoint depends on evaluations."""
        return bool(self.keep_best or self.early_stopping_patience)

    @property
    def mode(self) -> Mode:
        """`best_mode`, derived from the metric's name if it is None."""
        return settled_mode(self.monitored, self.best_mode)

    @property
    def evaluates_every(self) -> int:
        """`eval_every`, or `save_every` if it is None."""
        return self.save_every if self.eval_every is None else self.eval_every

    @property
    def monitored(self) -> str:
        """The metric for early stopping and the best checkpoint."""
        return self.keep_best or "eval_loss"


def settled(
    options: TrainingOptions | None, given: Mapping[str, Any], *, has_directory: bool
) -> TrainingOptions:
    """The options of a run.

    Args:
        options: base options; None: the defaults.
        given: single options that override them.
        has_directory: whether the run has a directory.

    Raises:
        ValueError: unknown or wrong options; profiling without a directory for the trace.
        ImportError: Weights & Biases was asked for and is not installed.
    """
    known = TrainingOptions.__dataclass_fields__
    if wrong := [unknown_key(name, known) for name in given if name not in known]:
        raise ValueError("Trainer: " + "; ".join(wrong))
    made = replace(options or TrainingOptions(), **given)
    if made.enable_profiling and not has_directory:
        raise ValueError("enable_profiling: the trace needs a checkpoint_dir to lie in")
    if made.wandb_project and find_spec("wandb") is None:
        raise ImportError("wandb_project: wandb is not installed: pip install wandb")
    return made
