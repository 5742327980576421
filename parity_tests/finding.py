"""Settings under which a converted model computes what was recorded.

The same search as by data (`efficientids_flax.search`), with another measure: how many of the
recorded values are not as ours, and how far they are off.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from efficientids_flax.search import Tried, Verdict
from efficientids_flax.search.climb import Climb, Progress
from efficientids_flax.search.decide import narrowed, settled_origins
from efficientids_flax.search.moves import Choice, choices, matches, moved, unusable
from efficientids_flax.settings import open_settings, value_at
from efficientids_flax.settings.table import ModelConfig
from parity_tests.check import check_kind, compared
from parity_tests.compare import Difference, wanted
from parity_tests.names import TABLES
from parity_tests.recording import Pass, Recording
from parity_tests.run import Subject, run

SHOWN = -8.0  # decades below which a relative difference is none
MISFIT = 1.0  # of a value that is not as recorded, besides how far it is off


@dataclass(frozen=True)
class Agreed:
    """Settings found from a recording.

    Attributes:
        config: under which most agrees.
        verdicts: of each setting that was tried.
        differences: of every recorded value, under `config`.
        runs: how many configurations were run.
        finished: whether there was time for all that is to be tried.
    """

    config: ModelConfig
    verdicts: tuple[Verdict, ...]
    differences: tuple[Difference, ...]
    runs: int
    finished: bool

    @property
    def agrees(self) -> bool:
        """Whether every recorded value of the pass is as ours."""
        return not any(one.fails for one in self.differences)

    @property
    def origins(self) -> dict[str, str]:
        """Dotted key -> origin, of the settings that the recording decides or changes."""
        return settled_origins(self.verdicts) if self.agrees else {}


class Agreement:
    """How well a model agrees with one pass of a recording, by configuration."""

    def __init__(self, subject: Subject, recording: Recording, one: Pass) -> None:
        """Keeps what is compared."""
        self._subject, self._recording, self._one = subject, recording, one
        self._known: dict[ModelConfig, list[Difference]] = {}

    @property
    def runs(self) -> int:
        """How many configurations were run."""
        return len(self._known)

    def differences(self, config: ModelConfig) -> list[Difference]:
        """Each recorded value of the pass against ours."""
        if config not in self._known:
            subject = replace(self._subject, config=config).in_dtype("float32")
            # Operation by operation, since compiling each model whole takes a hundred times longer.
            with jax.disable_jit():
                ours = run(subject, self._one, gradients=False)
            table = TABLES[self._recording.names]
            items = wanted(self._one, table, subject.backbone, ours.values)
            self._known[config] = [
                compared(item, subject, self._recording, self._one, ours) for item in items
            ]
        return self._known[config]

    def __call__(self, config: ModelConfig) -> np.ndarray:
        """For each recorded value 0, or 1 and more the further ours is from it."""
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
    """Search the settings under which a pass of a recording agrees.

    Args:
        subject: the model, with the parameters that the pass belongs to.
        recording, one: what it is compared with.
        origins: dotted key -> origin; settings that are 'assumed' are tried.
        also: keys that are tried though their value was told.
        seconds: after which the search has to do with what it has; None: no limit.
        progress: told what is being done.
        partly: whether each setting is weighed too where not every value agrees; False: then there
            are no verdicts.
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
    """The pass to search by: in float32 if there is one, with the most recorded values."""
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
    """With the assumed value of each setting that makes nothing worse."""
    for choice in able:
        if matches(best, choice.key, choice.values[0]):
            continue
        other = moved(best, choice.key, choice.values[0])
        if other is not None and agreement(other).sum() <= agreement(best).sum():
            best = other
    return best


def _verdict(chosen: ModelConfig, choice: Choice, agreement: Agreement) -> Verdict:
    """What the recording says of the other values of a setting."""
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
