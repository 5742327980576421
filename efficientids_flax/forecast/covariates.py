"""Forecasts with covariates: a linear regression fitted in context, and TimesFM for the residual.

Same as `forecast_with_covariates` of `timesfm` 1.3. Letters: S series, h points ahead, M columns of
the regression.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from efficientids_flax.forecast.model import TimesFM
from efficientids_flax.forecast.predict import forecast
from efficientids_flax.forecast.series import TINY, Series, read_series, scaled

Mode = Literal["xreg + timesfm", "timesfm + xreg"]
Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Covariates:
    """Covariates of the series, by name.

    Attributes:
        dynamic_numerical, dynamic_categorical: one sequence per series, h longer than the series.
        static_numerical, static_categorical: one value per series.
    """

    dynamic_numerical: Columns = field(default_factory=dict)
    dynamic_categorical: Columns = field(default_factory=dict)
    static_numerical: Columns = field(default_factory=dict)
    static_categorical: Columns = field(default_factory=dict)


class CovariateForecasts(NamedTuple):
    """Forecasts of S series.

    Attributes:
        mean: [S, h], the sum of regression and TimesFM.
        regression: [S, h], the regression on the covariates alone.
    """

    mean: np.ndarray
    regression: np.ndarray


def forecast_with_covariates(
    model: TimesFM,
    params: Any,
    series: Sequence[Any] | Mapping[Any, Any],
    horizon: int,
    covariates: Covariates,
    *,
    mode: Mode = "xreg + timesfm",
    normalize_targets: bool = True,
    ridge: float = 0.0,
    **options: Any,
) -> CovariateForecasts:
    """Forecast each series, given covariates that are known ahead.

    One regression is fitted over all series of the call.

    Args:
        model, params: from `load_model`.
        series: see `forecast`.
        horizon: h.
        covariates: covariates of all series, in the order of the series.
        mode: 'xreg + timesfm' fits the series, and forecasts the residual; 'timesfm + xreg' fits
            the residual of TimesFM's forecast on the context.
        normalize_targets: scale each series by its own mean and deviation for the regression.
        ridge: weight of the L2 penalty on the coefficients; 0: the least-squares solution of least
            norm.
        **options: options of `forecast`, such as `freq`.

    Raises:
        ValueError: there are no covariates, their number or length is wrong, or numbers are not
            finite; names covariate and series.
    """
    if mode not in ("xreg + timesfm", "timesfm + xreg"):
        raise ValueError(f"mode: expected 'xreg + timesfm' or 'timesfm + xreg', found {mode!r}")
    read = read_series(series)
    _check(read, series, horizon, covariates)
    if mode == "xreg + timesfm":
        targets, made, context = list(read.values), None, None
        lengths = [len(one) for one in read.values]
    else:
        options = {**options, "on_context": True}
        made = forecast(model, params, list(read.values), horizon, **options).mean
        context = made[:, :-horizon]
        lengths = [
            min(max(len(one) - model.config.patch_length, 0), context.shape[1])
            for one in read.values
        ]
        if not any(lengths):
            raise ValueError("mode: every series is within one patch, which has no forecast")
        targets = [
            one[len(one) - count :] - own[own.shape[0] - count :]
            for one, own, count in zip(read.values, context, lengths, strict=True)
        ]
    scales = [(0.0, 1.0)] * len(targets)
    if normalize_targets:
        parts = [scaled(one) if len(one) else (one, 0.0, 1.0) for one in targets]
        targets, scales = [part[0] for part in parts], [part[1:] for part in parts]
    before, ahead = _matrices(read, covariates, lengths, horizon, drop_first=ridge <= 0)
    weights = _fitted(before, np.concatenate(targets), ridge)
    regression = (ahead @ weights).reshape(len(targets), horizon)
    mean, deviation = (np.asarray(scale)[:, None] for scale in zip(*scales, strict=True))
    if made is not None:
        regression = regression * deviation + mean
        return CovariateForecasts(made[:, -horizon:] + regression, regression)
    fits = np.split(before @ weights, np.cumsum(lengths)[:-1])
    rest = [target - fit for target, fit in zip(targets, fits, strict=True)]
    left = forecast(model, params, rest, horizon, **options).mean[:, -horizon:]
    return CovariateForecasts((left + regression) * deviation + mean, regression * deviation + mean)


def _fitted(columns: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    """The coefficients, float64 [M]; those of least norm if there are several solutions."""
    if ridge <= 0:
        return np.linalg.lstsq(columns, targets, rcond=None)[0]
    square = columns.T @ columns + ridge * np.eye(columns.shape[1])
    return np.linalg.solve(square, columns.T @ targets)


def _matrices(
    read: Series, covariates: Covariates, lengths: Sequence[int], horizon: int, *, drop_first: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the context [points, M] and of the time ahead [S h, M]: 1, numbers, categories."""
    ends = [len(one) for one in read.values]

    def dynamic(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        pairs = list(zip(values, ends, lengths, strict=True))
        before = [np.asarray(one)[-horizon - count : -horizon or None] for one, _, count in pairs]
        return np.concatenate(before), np.concatenate(
            [np.asarray(one)[-horizon:] for one in values]
        )

    def static(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        return np.repeat(np.asarray(values), lengths), np.repeat(np.asarray(values), horizon)

    numbers = [
        dynamic(covariates.dynamic_numerical[n]) for n in sorted(covariates.dynamic_numerical)
    ]
    numbers += [static(values) for values in covariates.static_numerical.values()]
    found: list[tuple[Any, Any]] = [(np.ones((sum(lengths), 1)), np.ones((len(ends) * horizon, 1)))]
    for before, ahead in numbers:
        centre, width = np.mean(before), np.std(before)
        width = width if width > TINY else 1.0
        found.append(((before[:, None] - centre) / width, (ahead[:, None] - centre) / width))
    kinds = [dynamic(covariates.dynamic_categorical[n])
             for n in sorted(covariates.dynamic_categorical)]  # fmt: skip
    kinds += [static(values) for values in covariates.static_categorical.values()]
    for before, ahead in kinds:
        levels = sorted(set(before.tolist()))[int(drop_first) :]
        if levels:  # a level that only occurs ahead is 0 in all columns
            first, second = (
                np.stack([part == level for level in levels], axis=1).astype(np.float64)
                for part in (before, ahead)
            )
            found.append((first, second))
    before, ahead = zip(*found, strict=True)
    return np.concatenate(before, axis=1), np.concatenate(ahead, axis=1)


def _check(
    read: Series, given: Sequence[Any] | Mapping[Any, Any], horizon: int, covariates: Covariates
) -> None:
    """Raise `ValueError` for covariates that do not fit the series."""
    raw = list(given.values() if isinstance(given, Mapping) else given)
    moved = [len(np.asarray(one)) - len(own) for one, own in zip(raw, read.values, strict=True)]
    problems = []
    for kind, columns in vars(covariates).items():
        for name, values in columns.items():
            if len(values) != len(read.names):
                problems.append(f"{kind} {name}: found {len(values)} for {len(read.names)} series")
                continue
            if kind.endswith("numerical") and not all(
                np.isfinite(np.asarray(one, np.float64)).all() for one in values
            ):
                problems.append(f"{kind} {name}: holds values that are not finite")
            if not kind.startswith("dynamic"):
                continue
            for own, one, series, front in zip(read.names, values, read.values, moved, strict=True):
                wanted = len(series) + front + horizon
                if len(one) != wanted:
                    problems.append(
                        f"{kind} {name}: {own}: found {len(one)} values, expected {wanted}: those"
                        f" of the series and {horizon} more"
                    )
    if not any(vars(covariates).values()):
        problems.append("covariates: there are none; `forecast` needs none")
    if problems:
        raise ValueError("\n  ".join(["covariates do not fit:", *problems[:20]]))
