"""Where the numbers of a run go: history, event files, Weights & Biases, the display."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from efficientids_flax.train.event_files import EventFile
from efficientids_flax.train.history import History, Row
from efficientids_flax.train.options import TrainingOptions
from efficientids_flax.train.progress import make_progress


class Recorder:
    """Takes the numbers and hands them on.

    Attributes:
        history: all of them.
    """

    def __init__(
        self,
        options: TrainingOptions,
        directory: Path | None,
        first: int,
        last: int,
        primary: bool = True,
    ) -> None:
        """Open everything that was asked for.

        Args:
            options: of the run.
            directory: where files go; None: nowhere.
            first, last: step before the first one, and the last.
            primary: whether this process writes and shows; all of them remember.

        Raises:
            ImportError: Weights & Biases was asked for and is not installed.
        """
        if not primary:
            directory = None
        self.history = History(directory, first)
        self._progress = make_progress(options.progress if primary else "none", first, last)
        self._events = EventFile(directory) if directory and options.tensorboard else None
        project = options.wandb_project if primary else None
        self._wandb = _wandb(project, directory, options) if project else None

    def steps(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """What was measured at each of some steps."""
        self.history.add(rows)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """What the steps since the last log amount to."""
        self._send("train", step, values)
        self._progress.update(step, values)
        self.history.flush()

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """An evaluation, or the final test."""
        row: Row = {"step": step, **values}
        self.history.add([row])
        self.history.flush()
        self._send("", step, values)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.note(f"step {step}  {shown}")

    def note(self, text: str) -> None:
        """A line for the reader."""
        self._progress.note(text)

    def close(self) -> None:
        """End all files and the display."""
        self._progress.close()
        self.history.close()
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _send(self, group: str, step: int, values: Mapping[str, float]) -> None:
        named = {f"{group}/{name}" if group else _grouped(name): x for name, x in values.items()}
        if self._events is not None:
            self._events.scalars(step, named)
            self._events.flush()
        if self._wandb is not None:
            self._wandb.log(named, step=step)


def _grouped(name: str) -> str:
    """'eval_loss' -> 'eval/loss', as TensorBoard groups charts."""
    group, _, rest = name.partition("_")
    return f"{group}/{rest}" if rest else name


def _wandb(project: str, directory: Path | None, options: TrainingOptions) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("wandb_project: wandb is not installed: pip install wandb") from error
    return wandb.init(
        project=project,
        dir=None if directory is None else str(directory),
        config=options.to_dict(),
        resume="allow",
        id=None if directory is None else _run_id(directory),
    )


def _run_id(directory: Path) -> str:
    """Same directory, same run: a run that goes on logs to where it was."""
    import hashlib

    return hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]
