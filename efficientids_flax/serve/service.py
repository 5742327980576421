"""The server without HTTP: its settings, how it starts, and how it reloads its export."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax

from efficientids_flax.serve.answers import (
    SET_NAME,
    Current,
    Export,
    Gathering,
    Snapshot,
    Source,
    load_export,
    read_set,
)
from efficientids_flax.serve.limits import Limits
from efficientids_flax.serve.logs import ABOUT, LOGGER
from efficientids_flax.serve.web import Metrics, Secrets

MISTAKES = (OSError, ValueError, TypeError, KeyError, ImportError, MemoryError, RuntimeError)
log = logging.getLogger(LOGGER)


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Attributes:
        source: the model.
        limits: limits of requests.
        secrets: tokens of those who may ask.
        sets: pairs of a set's name and a file with its items.
        hidden: names of sets whose items are never recommended; they need not exist yet.
    """

    source: Source
    limits: Limits = field(default_factory=Limits)
    secrets: Secrets = field(default_factory=Secrets)
    sets: tuple[tuple[str, str], ...] = ()
    hidden: tuple[str, ...] = ()


class ReloadingError(Exception):
    """An export is already being loaded."""


class Service:
    """The server's state. Create and use it on the event loop.

    Args:
        settings: settings of the server.
        settled: called whenever an export has begun to answer.

    Attributes:
        answering: whether an export is loaded and compiled.
        ready: `answering`, and not shutting down.
        heard: when data last came in, by `time.monotonic`.
    """

    def __init__(self, settings: Settings, settled: Callable[[], None] = lambda: None) -> None:
        self.settings, self.metrics, self._settled = settings, Metrics(), settled
        self.current = Current()
        self.gathering = Gathering(settings.limits, self.metrics.told())
        self.answering = self.ready = False
        self.heard = time.monotonic()
        self._loading = asyncio.Lock()
        self._stop_counting = self.metrics.count_compilations()

    @property
    def snapshot(self) -> Snapshot | None:
        """The current snapshot; None before the first export."""
        return self.current.snapshot

    async def start(self) -> None:
        """Load and compile the export and the sets, then answer.

        Raises:
            FileNotFoundError, ValueError, MemoryError: naming what is wrong.
        """
        async with self._loading:
            export = await asyncio.to_thread(self._load)
            self.current.replace(export)
            for name, file in self.settings.sets:
                rows = await asyncio.to_thread(read_set, file, export)
                self.current.put(name, lambda _, rows=rows: rows)
        self.gathering.start()
        self._tell_ready()

    async def reload(self) -> Snapshot:
        """Load what is at the source now and answer new requests from it; older ones keep theirs.

        Raises:
            ReloadingError: an export is already being loaded.
            FileNotFoundError, ValueError, MemoryError: naming what is wrong; the old export stays.
        """
        if self._loading.locked():
            raise ReloadingError("an export is being loaded already")
        async with self._loading:
            try:
                export = await asyncio.to_thread(self._load)
                lost = await asyncio.to_thread(self._replace, export)
            except MISTAKES as error:
                self.metrics.reloaded(well=False)
                log.error("kept the old export: %s", error)
                raise
        self.metrics.reloaded(well=True)
        for name, count in lost.items():
            log.warning("set %s: the new catalogue does not have %d of its items", name, count)
        self._tell_ready()
        found = self.snapshot
        assert found is not None
        return found

    async def stop(self) -> None:
        """Stop; see `Gathering.stop`."""
        self.closing()
        await self.gathering.stop()
        self._stop_counting()

    def closing(self) -> None:
        """Report that the server is about to stop."""
        self.ready = False
        self.metrics.ready.set(0)

    def _replace(self, export: Export) -> dict[str, int]:
        old = self.snapshot
        lost = self.current.replace(export)
        if old is not None and old.export.ranker.ranker.model is not export.ranker.ranker.model:
            jax.clear_caches()  # hold the old model's clustering; ours are kept apart
        return lost

    def _load(self) -> Export:
        source, old = self.settings.source, self.snapshot
        start = time.monotonic()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            export = load_export(
                source, self.settings.limits, None if old is None else old.export, _progress()
            )
        for one in told:
            log.warning("%s", one.message)
        about = {
            "seconds": round(time.monotonic() - start, 1),
            "items": export.catalogue.num_items,
            "max_history": export.max_history,
            "compiled": export.ranker.compiled,
        }
        log.info("loaded %s", source.path, extra={ABOUT: about})
        return export

    def _tell_ready(self) -> None:
        found = self.snapshot
        assert found is not None
        self.answering = self.ready = True
        self.metrics.ready.set(1)
        self.metrics.generation.set(found.generation)
        self._settled()
        log.info("ready", extra={ABOUT: {"generation": found.generation}})


def _progress() -> Callable[[int, int], None]:
    def tell(done: int, of: int) -> None:
        log.debug("compiled %d of %d", done, of)

    return tell


def named_files(pairs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Parse 'NAME=FILE' arguments of a command line.

    Raises:
        ValueError: one has another form, or its name is not valid for a set.
    """
    found = []
    for pair in pairs:
        name, _, file = pair.partition("=")
        if not name or not file:
            raise ValueError(f"{pair!r}: expected NAME=FILE")
        found.append((set_name(name), file))
    return tuple(found)


def set_name(name: str) -> str:
    """Return the name if it is valid for a set.

    Raises:
        ValueError: it is not valid.
    """
    if re.fullmatch(SET_NAME, name) is None:
        raise ValueError(
            f"set {name!r}: expected a name of letters, digits, '.', '_' and '-', at most 64"
        )
    return name
