"""Searches for the best settings: all combinations of the gross ones, then one by one, then pairs.

Changing one setting at a time cannot find a model with two wrong settings if fixing either alone
does not help. So the search follows several combinations, and tries pairs of changes at the end.
"""

import time
from collections.abc import Callable, Sequence
from itertools import combinations as pairs_of
from typing import Any

import numpy as np

from efficientids_flax.search.moves import Choice, combinations, moved, moves
from efficientids_flax.settings.table import ModelConfig

STARTS = 3  # number of best combinations that are followed
# Pairs are formed of the least bad single changes: at most this many per setting, and in all.
OF_EACH = 2
PAIRED = 40
LEAST_GAIN = 1e-6  # relative gain that counts; float32 rounding is about as large
Score = Callable[[ModelConfig], np.ndarray]
Progress = Callable[[str], None]


class Over(Exception):
    """Ends the search, because `best` is good enough or time is over."""


class Climb:
    """A search for the configuration with the lowest score.

    Attributes:
        best, least: the best configuration so far, and its score.
        finished: whether the search was completed.
    """

    def __init__(
        self,
        score: Score,
        seconds: float | None = None,
        progress: Progress | None = None,
        enough: float = -np.inf,
    ) -> None:
        """Start the clock.

        Args:
            score: maps a configuration to an array whose sum is minimised.
            seconds: time limit; the best so far is used then. None: no limit.
            progress: called with a line of text at each stage.
            enough: the search ends once the sum is this low.
        """
        self._score, self._enough = score, enough
        self._end = None if seconds is None else time.monotonic() + seconds
        self._progress = progress or (lambda text: None)
        self.best: ModelConfig | None = None
        self.least = np.inf
        self.finished = False

    def run(self, start: ModelConfig, able: Sequence[Choice]) -> ModelConfig:
        """Search from `start`; gives the best configuration found."""
        self.best, self.least = start, self._value(start)
        try:
            self._climb(start, able)
            self.finished = True
        except Over as reason:
            self.finished = self.least <= self._enough
            self._progress(str(reason))
        return self.best

    def _climb(self, start: ModelConfig, able: Sequence[Choice]) -> None:
        grid = combinations(start, able)
        self._progress(f"{len(grid)} combinations of the gross settings")
        ranked = sorted(grid, key=self._tried)
        for config in dict.fromkeys([start, *ranked[:STARTS]]):
            self._sweeps(config, able)
        while self._pairs(able):
            assert self.best is not None
            self._sweeps(self.best, able)

    def _sweeps(self, config: ModelConfig, able: Sequence[Choice]) -> None:
        """Take the best value of each setting in turn, until no change helps."""
        least = self._tried(config)
        while True:
            before = least
            for choice in able:
                for value in choice.values:
                    other = moved(config, choice.key, value)
                    if other is not None and (found := self._tried(other)) < least:
                        config, least = other, found
            self._progress(f"{self.least:.5g} after a sweep over {len(able)} settings")
            if not before - least > LEAST_GAIN * abs(before):
                return

    def _pairs(self, able: Sequence[Choice]) -> bool:
        """Try pairs of changes to the best configuration; gives whether one improved it."""
        assert self.best is not None
        best, before = self.best, self.least
        alone: list[tuple[float, str, Any]] = [
            (self._tried(other), key, value) for key, value, other in moves(best, able)
        ]
        alone.sort(key=lambda entry: entry[0])
        least_bad = []
        for entry in alone:
            if sum(key == entry[1] for _, key, _ in least_bad) < OF_EACH:
                least_bad.append(entry)
        for (_, first, one), (_, second, two) in pairs_of(least_bad[:PAIRED], 2):
            if first == second:
                continue
            half = moved(best, first, one)
            other = None if half is None else moved(half, second, two)
            if other is not None:
                self._tried(other)
        self._progress(f"{self.least:.5g} after pairs of changes")
        return before - self.least > LEAST_GAIN * abs(before)

    def _tried(self, config: ModelConfig) -> float:
        if self._end is not None and time.monotonic() > self._end:
            raise Over("time is over")
        value = self._value(config)
        if value < self.least:
            self.best, self.least = config, value
        if self.least <= self._enough:
            raise Over("nothing is left to make better")
        return value

    def _value(self, config: ModelConfig) -> float:
        return float(np.sum(self._score(config)))
