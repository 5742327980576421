"""Distributes a run's metrics: history, event files, Weights & Biases, the display.

Each log point only queues the metrics; they are written twice a second. Between steps of a few
milliseconds the CPU's caches hold the step's data, so each single write would cost several times as
much as writes in a batch.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from efficientids_flax.train.history import HISTORY, History
from efficientids_flax.train.logs.event_files import EventFile
from efficientids_flax.train.logs.progress import make_progress
from efficientids_flax.train.options import TrainingOptions

WRITE_EVERY = 0.5  # seconds


class Recorder:
    """Takes metrics and distributes them.

    Attributes:
        history: the history with all metrics.
    """

    def __init__(
        self,
        options: TrainingOptions,
        directory: Path | None,
        first: int,
        last: int,
        primary: bool = True,
    ) -> None:
        """Open all requested outputs.

        Args:
            options: options of the run.
            directory: directory for files; None: no files.
            first, last: the step before the first one, and the last one.
            primary: whether this process writes and displays; every process keeps the history.
        """
        if not primary:
            directory = None
        self._directory = directory
        self.history = History(directory, first)
        self._progress = make_progress(options.progress if primary else "none", first, last)
        self._events = EventFile(directory) if directory and options.tensorboard else None
        project = options.wandb_project if primary else None
        self._steps: list[tuple[int, Sequence[str], Sequence[Sequence[float]]]] = []
        self._logs: list[tuple[int, float, Mapping[str, float]]] = []
        self._next_write = 0.0
        self._told = False  # whether the note about thinned rows was printed
        if self.history.missing:
            self.note(
                f"{HISTORY}: lacks {self.history.missing} of the steps up to {first}, which were"
                " there: somebody changed the file, or it was not written whole"
            )
        self._wandb = _wandb(project, directory, options) if project else None

    def steps(self, first: int, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """Add the metrics of each of some steps; see `History.add_steps`."""
        self._steps.append((first, names, rows))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log means and speeds over the steps since the last log."""
        self._logs.append((step, time.time(), values))
        self._progress.update(step, values)
        now = time.monotonic()
        if now >= self._next_write:
            self.write()
            self._next_write = now + WRITE_EVERY

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Add the metrics of an evaluation, or of the final test."""
        self.write()
        self.history.add({"step": step, **values})
        self._send("", step, time.time(), values)
        self.write()
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.note(f"step {step}  {shown}")

    def write(self) -> None:
        """Write everything queued, and flush, so that readers of the files see it.

        Raises:
            OSError: the files cannot be written; names the directory.
        """
        with self._naming():
            self._write()

    def _write(self) -> None:
        for block in self._steps:
            self.history.add_steps(*block)
        for log in self._logs:
            self._send("train", *log)
        if self.history.rows.left_out and not self._told:
            self._told = True
            whole = "history.jsonl has all of them" if self._directory else "no file has them"
            self.note(f"history: of the first steps every second is kept in memory; {whole}")
        self._steps.clear()
        self._logs.clear()
        self.history.flush()
        if self._events is not None:
            self._events.flush()

    def begin_again(self) -> bool:
        """If the directory was removed, write the history again; returns whether it was removed.

        Raises:
            OSError: the directory cannot be made.
        """
        if self._directory is None:
            return False
        with self._naming():
            if not self.history.write_again():
                return False
            if self._events is not None:
                self._events.close()
                self._events = EventFile(self._directory)
        if any(path.name.partition(".")[0].isdigit() for path in self._directory.iterdir()):
            self.note(
                f"{self._directory / HISTORY}: was removed while the run went on; it is written"
                " anew, as far as it is in memory"
            )
            return False
        self.note(
            f"{self._directory}: was removed, or moved, while the run went on: its history and what"
            " follows are written there anew; its checkpoints and logs so far are gone from there"
        )
        return True

    def note(self, text: str) -> None:
        """Print a line for the user."""
        self._progress.note(text)

    def close(self) -> None:
        """Close all files and the display."""
        self._progress.close()
        self.write()
        with self._naming():
            self.history.close()
            if self._events is not None:
                self._events.close()
        if self._wandb is not None:
            self._wandb.finish()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Add the directory to errors of open files, which name no file."""
        try:
            yield
        except OSError as error:
            if error.filename is not None or self._directory is None:
                raise
            told = f"the logs of the run cannot be written: {error.strerror or error}"
            raise OSError(error.errno, told, str(self._directory)) from error

    def _send(self, group: str, step: int, at: float, values: Mapping[str, float]) -> None:
        named = {f"{group}/{name}" if group else _grouped(name): x for name, x in values.items()}
        if self._events is not None:
            self._events.scalars(step, named, at)
        if self._wandb is not None:
            self._wandb.log(named, step=step)


def _grouped(name: str) -> str:
    """'eval_loss' -> 'eval/loss', as TensorBoard groups charts."""
    group, _, rest = name.partition("_")
    return f"{group}/{rest}" if rest else name


def _wandb(project: str, directory: Path | None, options: TrainingOptions) -> Any:
    import wandb  # pyright: ignore[reportMissingImports]

    return wandb.init(
        project=project,
        dir=None if directory is None else str(directory),
        config=options.to_dict(),
        resume="allow",
        id=None if directory is None else _run_id(directory),
    )


def _run_id(directory: Path) -> str:
    """An id derived from the directory, so that a resumed run logs to the same W&B run."""
    import hashlib

    return hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]
