"""Searches for settings under which a converted model computes what was recorded.

The search is the same as by data (`efficientids_flax.search`) with another measure: how many of the
recorded values differ from ours, and by how much.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from efficientids_flax.search import Tried, Verdict
from efficientids_flax.search.climb import Climb, Progress
from efficientids_flax.search.decide import narrowed, settled_origins
from efficientids_flax.search.losses import unstacked
from efficientids_flax.search.moves import Choice, choices, matches, moved, unusable
from efficientids_flax.settings import open_settings, value_at
from efficientids_flax.settings.table import ModelConfig
from parity_tests.check import check_kind, compared
from parity_tests.compare import Difference, wanted
from parity_tests.names import TABLES
from parity_tests.recording import Pass, Recording
from parity_tests.run import Subject, run

SHOWN = -8.0  # log10 of the relative difference below which it counts as none
MISFIT = 1.0  # penalty of a value that differs, before the size of the difference is added


@dataclass(frozen=True)
class Agreed:
    """Settings found with a recording.

    Attributes:
        config: the configuration that agrees best.
        verdicts: one verdict per setting that was tried.
        differences: one entry per recorded value, under `config`.
        runs: how many configurations were run.
        finished: whether there was time to try everything.
    """

    config: ModelConfig
    verdicts: tuple[Verdict, ...]
    differences: tuple[Difference, ...]
    runs: int
    finished: bool

    @property
    def agrees(self) -> bool:
        """Whether every recorded value of the pass agrees with ours."""
        return not any(one.fails for one in self.differences)

    @property
    def origins(self) -> dict[str, str]:
        """Dotted key -> origin of the settings that the recording decides or changes."""
        return settled_origins(self.verdicts) if self.agrees else {}


class Agreement:
    """Measures how well a model agrees with one pass of a recording, for each configuration."""

    def __init__(self, subject: Subject, recording: Recording, one: Pass) -> None:
        """Store what is compared."""
        self._subject, self._recording, self._one = subject, recording, one
        self._params = jax.device_put(unstacked(subject.config, subject.params))
        self._known: dict[ModelConfig, list[Difference]] = {}

    @property
    def runs(self) -> int:
        """How many configurations were run."""
        return len(self._known)

    def differences(self, config: ModelConfig) -> list[Difference]:
        """Compare each recorded value of the pass with ours, under this configuration."""
        if config not in self._known:
            subject = replace(self._subject, config=config).in_dtype("float32")
            # Each layer, and each operation, by itself: to compile each model takes far longer.
            apart = subject.with_backbone(scan_layers=False, layers_per_block=1)
            apart = replace(apart, params=self._params)
            ours = run(apart, self._one, gradients=False, compiled=False)
            table = TABLES[self._recording.names]
            items = wanted(self._one, table, subject.backbone, ours.values)
            self._known[config] = [
                compared(item, subject, self._recording, self._one, ours) for item in items
            ]
        return self._known[config]

    def __call__(self, config: ModelConfig) -> np.ndarray:
        """One penalty per recorded value: 0 if it agrees, else 1 to 2, by how far it is off."""
        return np.array([_penalty(one) for one in self.differences(config)])


def find_agreement(
    subject: Subject,
    recording: Recording,
    one: Pass,
    origins: Mapping[str, str],
    *,
    also: Iterable[str] = (),
    seconds: float | None = None,
    progress: Progress | None = None,
    partly: bool = True,
) -> Agreed:
    """Search for settings under which a pass of a recording agrees.

    Args:
        subject: the model, with the parameters that the pass belongs to.
        recording, one: the recording and the pass to compare with.
        origins: dotted key -> origin; settings that are 'assumed' are tried.
        also: keys that are tried although their values are known.
        seconds: time after which the search stops with what it has; None: no limit.
        progress: called with what is being done.
        partly: whether to judge each setting even if not every value agrees; False: there are no
            verdicts then.
    """
    check_kind(subject.config, recording)
    start = subject.config
    length = next(np.shape(value)[1] for value in one.inputs.values())
    able = choices(start, origins, also=also, without=unusable(start, one.inputs, length))
    agreement = Agreement(subject, recording, one)
    climb = Climb(agreement, seconds, progress, enough=0.0)
    chosen = climb.run(start, able)
    if not partly and agreement(chosen).any():
        differences = tuple(agreement.differences(chosen))
        return Agreed(chosen, (), differences, agreement.runs, climb.finished)
    chosen = _restored(chosen, able, agreement)
    verdicts = [_verdict(chosen, choice, agreement) for choice in able
                if choice.key in open_settings(chosen)]  # fmt: skip
    told = tuple(one for one in verdicts if one.tried)
    differences = tuple(agreement.differences(chosen))
    return Agreed(chosen, told, differences, agreement.runs, climb.finished)


def most_told(recording: Recording) -> Pass:
    """The pass to search with: in float32 if there is one, with the most recorded values."""
    return max(
        recording.passes,
        key=lambda one: (one.dtype == "float32", len(one.activations) + len(one.outputs)),
    )


def _penalty(one: Difference) -> float:
    if not one.fails:
        return 0.0
    if one.verdict != "DIFFERS" or not np.isfinite(one.relative):
        return 2.0 * MISFIT
    decades = np.log10(max(one.relative, 10.0**SHOWN))
    return MISFIT + float(np.clip(1.0 - decades / SHOWN, 0.0, 1.0))


def _restored(best: ModelConfig, able: Sequence[Choice], agreement: Agreement) -> ModelConfig:
    """Go back to the assumed value of each setting for which that makes nothing worse."""
    for choice in able:
        if matches(best, choice.key, choice.values[0]):
            continue
        other = moved(best, choice.key, choice.values[0])
        if other is not None and agreement(other).sum() <= agreement(best).sum():
            best = other
    return best


def _verdict(chosen: ModelConfig, choice: Choice, agreement: Agreement) -> Verdict:
    """Judge the other values of a setting by the recording."""
    own = float(agreement(chosen).sum())
    tried = []
    for value in choice.values:
        other = None if matches(chosen, choice.key, value) else moved(chosen, choice.key, value)
        if other is None:
            continue
        found = float(agreement(other).sum())
        alike = [one.relative for one in agreement.differences(other)] == [
            one.relative for one in agreement.differences(chosen)
        ]
        part = narrowed(chosen, choice.key, value)
        tried.append(Tried(part, found, found - own, 0.0, None, found > own, alike))
    before, value = (
        narrowed(chosen, choice.key, one)
        for one in (choice.values[0], value_at(chosen, choice.key))
    )
    return Verdict(choice.key, before, value, own, tuple(tried))
