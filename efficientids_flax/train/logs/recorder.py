"""Where the numbers of a run go: history, event files, Weights & Biases, the display.

A log point takes them, and they are handed on twice a second: between steps of a few milliseconds
the processor's caches are the device's, and each handing on costs several times what it does in a
row.
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
        self._told = False  # that rows are left out
        self._wandb = _wandb(project, directory, options) if project else None

    def steps(self, first: int, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """What was measured at each of some steps; see `History.add_steps`."""
        self._steps.append((first, names, rows))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """What the steps since the last log amount to."""
        self._logs.append((step, time.time(), values))
        self._progress.update(step, values)
        now = time.monotonic()
        if now >= self._next_write:
            self.write()
            self._next_write = now + WRITE_EVERY

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """An evaluation, or the final test."""
        self.write()
        self.history.add({"step": step, **values})
        self._send("", step, time.time(), values)
        self.write()
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        self.note(f"step {step}  {shown}")

    def write(self) -> None:
        """Hand on what was taken since the last time, so that readers of the files see it.

        Raises:
            OSError: naming the directory, where the files cannot be written.
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
        """Write what is known once more where the directory was removed; whether it was.

        Raises:
            OSError: it cannot be made.
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
        """A line for the reader."""
        self._progress.note(text)

    def close(self) -> None:
        """End all files and the display."""
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
        """Errors of files that are open do not say which they are."""
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
    """Same directory, same run: a run that goes on logs to where it was."""
    import hashlib

    return hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]
