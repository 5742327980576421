"""The settings that fit best: all combinations of the gross ones, then one by one, then by pairs.

One change at a time does not find a model of which two settings are wrong where each alone makes
nothing better; so several combinations are begun with, and pairs are tried at the end.
"""

import time
from collections.abc import Callable, Sequence
from itertools import combinations as pairs_of
from typing import Any

import numpy as np

from efficientids_flax.search.moves import Choice, combinations, moved, moves
from efficientids_flax.settings.table import ModelConfig

STARTS = 3  # combinations that are followed
# The least bad changes are tried by pairs: so many of each setting, and so many in all.
OF_EACH = 2
PAIRED = 40
LEAST_GAIN = 1e-6  # share of a score below which a change is none: float32 rounds by as much
Score = Callable[[ModelConfig], np.ndarray]
Progress = Callable[[str], None]


class Over(Exception):
    """The search ends, with what it found in `best`: it is good enough, or time is over."""


class Climb:
    """A search for the least score.

    Attributes:
        best, least: the configuration that fits best so far, and its score.
        finished: whether all was tried that is to be tried.
    """

    def __init__(
        self,
        score: Score,
        seconds: float | None = None,
        progress: Progress | None = None,
        enough: float = -np.inf,
    ) -> None:
        """Begins the clock.

        Args:
            score: configuration -> array; its sum is to be small.
            seconds: after which what was found so far has to do; None: no limit.
            progress: told what is being done.
            enough: sum of the score with which the search ends.
        """
        self._score, self._enough = score, enough
        self._end = None if seconds is None else time.monotonic() + seconds
        self._progress = progress or (lambda text: None)
        self.best: ModelConfig | None = None
        self.least = np.inf
        self.finished = False

    def run(self, start: ModelConfig, able: Sequence[Choice]) -> ModelConfig:
        """The best configuration that is found from a first one."""
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
        """The best value of each setting in turn, until none is better."""
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
        """Whether two changes together make the best one better."""
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
