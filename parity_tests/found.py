"""The result of a search for settings, as text and as JSON; and the two ways to search."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from efficientids_flax.config import EfficientIDSConfig, TimesFMConfig
from efficientids_flax.search import (
    Findings,
    Tried,
    Verdict,
    find_settings,
    momentum_of,
    read_samples,
)
from efficientids_flax.search.climb import Progress
from efficientids_flax.settings import origin_of
from efficientids_flax.settings.table import ModelConfig
from efficientids_flax.stored import clustering_of, load_converted
from efficientids_flax.stored.load import Converted
from efficientids_flax.text import table
from parity_tests.check import check_kind
from parity_tests.converted import tables_of
from parity_tests.finding import Agreed, find_agreement, most_told
from parity_tests.readers import read
from parity_tests.recording import RecordingError
from parity_tests.run import Subject, belonging

MORE = "Give sequences of the kind that the model was trained on"


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        out: directory of the model.
        before: dotted key -> origin before the search.
        config: the configuration with the chosen values.
        verdicts: one verdict per setting that was tried.
        origins: dotted key -> origin of the settings that are decided or changed.
        measure: what `Verdict.loss` measures, in words.
        summary: how well the model fits, one line each.
        tells: whether the data can tell anything.
        finished: whether there was time to try everything.
    """

    out: str
    before: Mapping[str, str]
    config: ModelConfig
    verdicts: tuple[Verdict, ...]
    origins: dict[str, str]
    measure: str
    summary: tuple[str, ...]
    tells: bool
    finished: bool

    @property
    def undecided(self) -> tuple[Verdict, ...]:
        """Settings for which other values fit as well."""
        return tuple(one for one in self.verdicts if not one.found and one.alike)

    def origin(self, one: Verdict) -> str:
        """Origin of a setting after the search."""
        return origin_of({**self.before, **self.origins}, one.keys[0])

    def text(self, written: bool) -> str:
        """A table of the settings, and conclusions from it."""
        lines = list(self.summary)
        if not self.tells:
            return "\n".join([*lines, "Nothing is written."])
        lines += ["", table(self._rows()), ""]
        for one in self.undecided:
            others = ", ".join(_text(value) for value in one.alike)
            chosen = _text(one.value)
            lines.append(f"cannot tell {one.key}={chosen} from {others}: stays {self.origin(one)}")
        if not self.finished:
            lines.append("the search ended before all was tried: give it more --minutes")
        changed = [one for one in self.verdicts if one.value != one.before]
        if changed:
            told = ", ".join(
                f"{one.key}={_text(one.value)} (was {_text(one.before)})" for one in changed
            )
            lines.append(f"changed: {told}")
        what = f"{sum(one.found for one in self.verdicts)} settings as found"
        lines.append(
            f"{self.out}/config.json: {what}" if written else f"nothing is written; {what}"
        )
        return "\n".join(lines)

    def to_json(self, written: bool) -> dict[str, Any]:
        """The result for programs."""
        return {
            "out": self.out,
            "written": written,
            "tells": self.tells,
            "finished": self.finished,
            "summary": list(self.summary),
            "settings": [
                {
                    "key": one.key,
                    "value": one.value,
                    "before": one.before,
                    "origin": self.origin(one),
                    self.measure: _number(one.loss),
                    "alike": list(one.alike),
                    "tried": [_tried(other, self.measure) for other in one.tried],
                }
                for one in self.verdicts
            ],
            "model": self.config.to_dict(),
        }

    def _rows(self) -> list[Sequence[str]]:
        rows: list[Sequence[str]] = [
            ("setting", "value", "origin", self.measure, "next best", "worse by", "surely")
        ]
        for one in self.verdicts:
            origin = self.origin(one)
            other = one.runner_up
            next_best = ("makes no difference", "", "")
            if other is not None:
                error = f" +- {other.error:.5f}" if other.error else ""
                next_best = _text(other.value), f"{other.worse:+.5f}{error}", _surely(other)
            rows.append((one.key, _text(one.value), origin, f"{one.loss:.5g}", *next_best))
        return rows


def found_from_tokens(
    out: str | os.PathLike[str],
    tokens: str | os.PathLike[str],
    *,
    tokenizer: str | None = None,
    clustering: str | None = None,
    also: Sequence[str] = (),
    length: int = 128,
    sequences: int = 256,
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Found:
    """Search by the loss on sequences, see `efficientids_flax.search`.

    Raises:
        FileNotFoundError, ValueError: the model or the sequences cannot be used.
    """
    from efficientids_flax.backbone.presets import load_tokenizer

    converted, model = _converted(out)
    origins = converted.config.origins.get("model", {})
    samples = read_samples(
        tokens,
        tokenizer=None if tokenizer is None else load_tokenizer(tokenizer),
        length=length,
        most=sequences,
    )
    tables = None
    if isinstance(model, EfficientIDSConfig) and not model.full_softmax:
        tables = clustering_of(out, clustering)
    found = find_settings(
        model,
        origins,
        converted.params,
        samples,
        momentum=momentum_of(converted.optimizer_state.optimizer),
        clustering=tables,
        also=also,
        seconds=None if minutes is None else 60 * minutes,
        progress=progress,
    )
    return Found(
        str(out), origins, found.config, found.verdicts, found.origins, "loss", _told(found),
        found.tells, found.finished,
    )  # fmt: skip


def found_from_recording(
    out: str | os.PathLike[str],
    against: str | os.PathLike[str],
    *,
    clustering: str | None = None,
    also: Sequence[str] = (),
    minutes: float | None = None,
    progress: Progress | None = None,
) -> Found:
    """Search by recorded values, see `finding`.

    Raises:
        RecordingError, FileNotFoundError, ValueError: the model or the recording cannot be used.
    """
    converted, model = _converted(out)
    origins = converted.config.origins.get("model", {})
    recording = read(against)
    check_kind(model, recording)
    if not recording.passes:
        raise RecordingError(f"{against}: has no recorded values to search by")
    subject = Subject(model, converted.params, tables_of(model, recording, clustering))
    one = most_told(recording)
    found = find_agreement(
        belonging(subject, recording, one), recording, one,
        origins, also=also,
        seconds=None if minutes is None else 60 * minutes, progress=progress,
    )  # fmt: skip
    return Found(
        str(out), origins, found.config, found.verdicts, found.origins, "disagreement",
        _compared(found), found.agrees, found.finished,
    )  # fmt: skip


def _converted(out: str | os.PathLike[str]) -> tuple[Converted, ModelConfig]:
    converted = load_converted(Path(out))
    if converted.config.model is None:
        raise ValueError(
            f"{out}: family {converted.config.family!r} has no model, so that there are no settings"
        )
    if isinstance(converted.config.model, TimesFMConfig):
        raise ValueError(f"{out}: is a forecaster, whose settings are not searched: give --set")
    return converted, converted.config.model


def _told(found: Findings) -> tuple[str, ...]:
    """Lines on how well the model fits the sequences."""
    lines = [
        f"loss per label {found.loss:.5f}, with what was assumed {found.loss_before:.5f};"
        f" {found.baseline:.5f} by how often each label comes ({found.runs} runs)"
    ]
    if not found.tells:
        lines.append(
            "these sequences cannot tell: under no settings is the model clearly better than that;"
            f" either it is not trained, or on something else. {MORE}."
        )
    elif not found.by_momentum:
        lines.append(
            "without the optimizer's momentum caps and activations show in the loss alone, often"
            " too little"
        )
    return tuple(lines)


def _compared(found: Agreed) -> tuple[str, ...]:
    """Lines on how well the model fits the recording."""
    failing = [one for one in found.differences if one.fails]
    if not failing:
        return (f"all {len(found.differences)} recorded values agree ({found.runs} runs)",)
    return (
        f"{len(failing)} of {len(found.differences)} recorded values differ under all settings that"
        f" were tried ({found.runs} runs), first {failing[0].name};"
        " `efficientids parity` shows them",
    )


def _text(value: Any) -> str:
    """A value as `--set` takes it; for a record with one part, the value of that part."""
    if isinstance(value, Mapping) and len(value) == 1:
        (value,) = value.values()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _surely(other: Tried) -> str:
    """How certain it is that the other value is wrong."""
    if other.distance is not None and other.out:
        return f"momentum {other.distance:.1f} sd"
    if not np.isfinite(other.worse):
        return "no number"
    if not other.error:
        return "exactly" if other.out else ""
    return f"{other.worse / other.error:.1f} se" + ("" if other.out else ", undecided")


def _tried(other: Tried, measure: str) -> dict[str, Any]:
    return {
        "value": other.value,
        measure: _number(other.loss),
        "worse": _number(other.worse),
        "error": _number(other.error),
        "momentum_distance": other.distance,
        "excluded": other.out,
        "same_numbers": other.same,
    }


def _number(value: float) -> float | None:
    """The number, or None if JSON cannot express it."""
    return float(value) if np.isfinite(value) else None
