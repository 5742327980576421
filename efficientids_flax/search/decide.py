"""Decides which values the samples confirm, and which they cannot tell apart.

On a small sample a wrong setting can look better: a model trained with a cap may have a lower loss
without it. So an assumed value is kept until there is evidence against it, and a value counts as
found only if there is evidence against every other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from efficientids_flax.search.moves import Choice, matches, moved
from efficientids_flax.settings import ASSUMED, FOUND, named_parts, open_settings, value_at
from efficientids_flax.settings.table import ModelConfig

SURE = 4.0  # standard errors (loss) or deviations (momentum) beyond which a value is ruled out
APART = 3.0  # deviations by which a value must be further from the momentum than the chosen one
PASSES = 4
Losses = Callable[[ModelConfig], np.ndarray]
Distance = Callable[[ModelConfig, str], float | None]


@dataclass(frozen=True)
class Tried:
    """One value of a setting, with all others as chosen.

    Attributes:
        value: in JSON form.
        loss: loss per label.
        worse, error: loss per label minus that of the chosen value, and its standard error.
        distance: distance of the momentum in standard deviations; None if momentum says nothing, or
            the loss alone rules the value out.
        out: whether there is evidence against it.
        same: whether it computes the same numbers as the chosen value, so that they cannot be told
            apart.
    """

    value: Any
    loss: float
    worse: float
    error: float
    distance: float | None = None
    out: bool = False
    same: bool = False


@dataclass(frozen=True)
class Verdict:
    """The conclusion about one setting.

    Attributes:
        key: dotted name.
        before, value: the assumed and the chosen value; see `narrowed`.
        loss: loss per label with the chosen value.
        tried: the other values, likeliest first.
    """

    key: str
    before: Any
    value: Any
    loss: float
    tried: tuple[Tried, ...]

    @property
    def keys(self) -> list[str]:
        """The dotted keys that the verdict covers; for a record, those of its parts."""
        if not isinstance(self.value, Mapping):
            return [self.key]
        return [f"{self.key}.{part}" for part in self.value]

    @property
    def found(self) -> bool:
        """Whether there is evidence against every other value."""
        others = [one for one in self.tried if not one.same]
        return bool(others) and all(one.out for one in others)

    @property
    def alike(self) -> tuple[Any, ...]:
        """Other values that fit as well, although they compute other numbers."""
        return tuple(one.value for one in self.tried if not one.out and not one.same)

    @property
    def runner_up(self) -> Tried | None:
        """The other value with the lowest loss."""
        others = [one for one in self.tried if not one.same]
        return min(others, key=lambda one: one.loss, default=None)


def settled_origins(verdicts: Iterable[Verdict]) -> dict[str, str]:
    """The origins that follow from verdicts: dotted key -> 'found' or 'assumed'.

    A changed value that is not the only one that fits is 'assumed': its earlier origin, such as the
    tree, a dump or the user, no longer holds.
    """
    settled: dict[str, str] = {}
    for one in verdicts:
        if one.found or one.value != one.before:
            settled |= dict.fromkeys(one.keys, FOUND if one.found else ASSUMED)
    return settled


def narrowed(config: ModelConfig, key: str, value: Any) -> Any:
    """For a record, only the parts that are tried: for rotary positions `{"pairing": ...}`."""
    parts = named_parts(open_settings(config)[key], value)
    return {part: value[part] for part in parts} if parts else value


class Judge:
    """Compares values of settings by losses on samples, and by momentum if there is one."""

    def __init__(
        self, losses: Losses, weight: np.ndarray, distance: Distance | None = None
    ) -> None:
        """Store what values are compared by.

        Args:
            losses: maps a configuration to the summed losses of each sequence, [B].
            weight: total weight of each sequence's labels, [B].
            distance: maps (configuration, key) to the distance of the momentum.
        """
        self._losses, self._weight = losses, weight
        self._distance = distance or (lambda config, key: None)

    def settle(self, best: ModelConfig, able: Sequence[Choice]) -> ModelConfig:
        """The likeliest configuration; keeps assumed values unless there is evidence against them.

        Args:
            best: the configuration with the lowest loss.
            able: the settings that may change.
        """
        chosen = best
        for _ in range(PASSES):
            before = chosen
            for choice in able:
                chosen = self._likeliest(chosen, choice)
            if chosen == before:
                break
        return chosen

    def verdicts(self, chosen: ModelConfig, able: Sequence[Choice]) -> list[Verdict]:
        """The conclusion about each setting that could change."""
        found = []
        for choice in able:
            if choice.key not in open_settings(chosen):
                continue
            tried = self._tried(chosen, choice)
            if tried:
                loss = float(self._losses(chosen).sum() / self._weight.sum())
                before, value = (
                    narrowed(chosen, choice.key, one)
                    for one in (choice.values[0], value_at(chosen, choice.key))
                )
                found.append(Verdict(choice.key, before, value, loss, tuple(tried)))
        return found

    def difference(self, first: ModelConfig, second: ModelConfig) -> tuple[float, float]:
        """Loss per label of `second` minus that of `first`, and its standard error (paired)."""
        return paired(self._losses(second) - self._losses(first), self._weight)

    def _likeliest(self, chosen: ModelConfig, choice: Choice) -> ModelConfig:
        """The configuration with the likeliest value by loss, momentum and prior expectation."""
        able = self._models(chosen, choice)
        if len(able) < 2:
            return chosen
        least = min((model for _, model in able), key=lambda model: self._losses(model).sum())
        ranked = []
        for rank, (_, model) in enumerate(able):
            worse, error = self.difference(least, model)
            # Within a few errors, loss can mislead, so momentum counts too. The table lists
            # likelier values first: each later one is penalised more.
            errors = worse / error if error > 0 else 0.0
            if not np.isfinite(worse) or errors > SURE:
                doubt = errors**2 if np.isfinite(worse) else np.inf
            else:
                doubt = (errors / 2) ** 2 + (self._distance(model, choice.key) or 0.0) ** 2
            ranked.append((doubt + (rank and SURE + rank), rank, model))
        return min(ranked, key=lambda entry: entry[:2])[2]

    def _models(self, chosen: ModelConfig, choice: Choice) -> list[tuple[Any, ModelConfig]]:
        """Every value of a setting that gives a valid model, with that model, likeliest first."""
        found = []
        for value in choice.values:
            if matches(chosen, choice.key, value):
                found.append((value, chosen))
            elif (other := moved(chosen, choice.key, value)) is not None:
                found.append((value, other))
        if not any(model == chosen for _, model in found):
            found.append((value_at(chosen, choice.key), chosen))
        return found

    def _tried(self, chosen: ModelConfig, choice: Choice) -> list[Tried]:
        """Compare the other values with the chosen one."""
        models = [(v, m) for v, m in self._models(chosen, choice) if m != chosen]
        own = self._distance(chosen, choice.key)
        found = []
        for value, model in models:
            worse, error = self.difference(chosen, model)
            by_loss = not np.isfinite(worse) or worse > SURE * error > 0
            distance = None if by_loss else self._distance(model, choice.key)
            by_momentum = (
                distance is not None and own is not None and distance > max(SURE, own + APART)
            )
            spread = np.max(np.abs(self._losses(model) - self._losses(chosen)), initial=0.0)
            same = bool(spread <= 1e-6 * np.max(np.abs(self._losses(chosen)), initial=1e-30))
            loss = float(self._losses(model).sum() / self._weight.sum())
            out = bool(by_loss or by_momentum) and not same
            part = narrowed(chosen, choice.key, value)
            found.append(Tried(part, loss, worse, error, distance, out, same))
        return found


def paired(differences: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Mean difference per label over sequences with these weights, and its standard error.

    Args:
        differences: differences of each sequence's summed loss, float64 [B].
        weight: total weight of each sequence's labels, [B].

    Returns:
        The ratio estimate of the mean and its error (Cochran, Sampling Techniques, eq. 2.39).
    """
    total = float(weight.sum())
    if not np.all(np.isfinite(differences)):
        return np.inf, np.inf
    mean = float(differences.sum() / total)
    count = len(differences)
    rest = differences - mean * weight
    error = float(np.sqrt(np.sum(np.square(rest)) * count / max(count - 1, 1)) / total)
    return mean, error
