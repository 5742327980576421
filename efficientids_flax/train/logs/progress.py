"""Progress display on standard error: a bar on a terminal, otherwise plain lines."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TextIO

Kind = Literal["auto", "bar", "lines", "none"]
EVERY = 1.0  # seconds between two updates; drawing a bar takes nearly 1 ms
SHOWN = ("loss", "learning_rate", "grad_norm", "mfu")


class Progress(Protocol):
    """A display of a run."""

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Show the metrics after a step, including `steps_per_second` and `tokens_per_second`."""
        ...

    def note(self, text: str) -> None:
        """Print a line that stays."""
        ...

    def close(self) -> None:
        """Close the display; the run has ended."""
        ...


def make_progress(kind: Kind, first: int, last: int, stream: TextIO | None = None) -> Progress:
    """The display of the steps after `first` up to `last`.

    Args:
        kind: 'auto' is a bar on a terminal and lines elsewhere.
        first, last: see above.
        stream: where to write; default: standard error.
    """
    stream = sys.stderr if stream is None else stream
    if stream is None:  # a program without a console
        return _Nothing()
    if kind == "auto":
        kind = "bar" if stream.isatty() else "lines"
    if kind == "bar":
        return _Shown(_Bar(first, last, stream))
    return _Shown(_Lines(first, last, stream)) if kind == "lines" else _Nothing()


class _Nothing:
    def update(self, step: int, values: Mapping[str, float]) -> None:
        del step, values

    def note(self, text: str) -> None:
        del text

    def close(self) -> None:
        pass


class _Shown:
    """A display that goes silent if its stream closes: the run continues without a terminal."""

    def __init__(self, display: Progress) -> None:
        self._display: Progress = display

    def update(self, step: int, values: Mapping[str, float]) -> None:
        with self._until_closed():
            self._display.update(step, values)

    def note(self, text: str) -> None:
        with self._until_closed():
            self._display.note(text)

    def close(self) -> None:
        with self._until_closed():
            self._display.close()

    @contextmanager
    def _until_closed(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, SystemExit):  # closed file; Rich exits on a broken pipe
            self._display = _Nothing()


class _Lines:
    """At most one line per second, and always the first and the last."""

    def __init__(self, first: int, last: int, stream: TextIO) -> None:
        self._last, self._stream, self._next = last, stream, 0.0

    def update(self, step: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now < self._next and step < self._last:
            return
        self._next = now + EVERY
        self.note(f"step {step}/{self._last}  {_described(values, self._last - step)}")

    def note(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        pass


class _Bar:
    """A bar that is redrawn only on updates, without a thread that would compete with the steps."""

    def __init__(self, first: int, last: int, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            TextColumn("training"), BarColumn(bar_width=24), MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
        )  # fmt: skip
        self._display: Any = Progress(
            *columns, console=Console(file=stream, force_terminal=True), auto_refresh=False
        )
        self._display.start()
        self._task = self._display.add_task("", total=last, completed=first, text="")
        self._last, self._next = last, 0.0

    def update(self, step: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now < self._next and step < self._last:
            return
        self._next = now + EVERY
        text = _described(values, self._last - step)
        self._display.update(self._task, completed=step, text=text, refresh=True)

    def note(self, text: str) -> None:
        self._display.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._display.stop()


def _described(values: Mapping[str, float], left: int) -> str:
    """A short text with loss, speed and time left."""
    parts = [f"{name} {values[name]:.4g}" for name in SHOWN if name in values]
    for name, unit in (("tokens_per_second", "tokens/s"), ("steps_per_second", "steps/s")):
        if values.get(name):
            parts.append(f"{values[name]:,.3g} {unit}" if values[name] < 1e3 else
                         f"{values[name]:,.0f} {unit}")  # fmt: skip
    if left > 0 and values.get("steps_per_second"):
        parts.append(f"{_clock(left / values['steps_per_second'])} left")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
