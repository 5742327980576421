"""Forecasts of a table in the usual long format: one row a point, `unique_id`, `ds` and `y`.

The table can be of any type with columns by name (pandas, polars, a dict); the result is of the
same type. Letters: S series, h points ahead.
"""

import csv
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from efficientids_flax.forecast.frequency import Frequency, dates_ahead, read_frequency
from efficientids_flax.forecast.model import TimesFM
from efficientids_flax.forecast.predict import Forecasts, forecast

ID, TIME, VALUE, NAME = "unique_id", "ds", "y", "timesfm"
ALONE = "series"  # name of the series if the table has no column of names
SHOWN = 5


class Series(NamedTuple):
    """One series of a table: its name, its dates (or numbers) in order, its values."""

    name: str
    dates: np.ndarray
    values: np.ndarray


def forecast_frame(
    model: TimesFM,
    params: Any,
    frame: Any,
    horizon: int,
    *,
    freq: str | int | None = None,
    columns: tuple[str, str, str] = (ID, TIME, VALUE),
    quantiles: Sequence[float] | None = None,
    **options: Any,
) -> Any:
    """Forecast each series of a table; the result is a table of the same type.

    Args:
        model, params: from `load_model`.
        frame: one row a point, in any order.
        horizon: h.
        freq: step between dates, such as 'D'; None: the step between the last two.
        columns: names of the columns of names, dates and values; if the table lacks the first, it
            is one series. Dates may be whole numbers.
        quantiles: levels to return; None: all of the model.
        **options: options of `forecast`.

    Returns:
        S h rows of `unique_id`, `ds`, `timesfm` (the point forecast) and `timesfm-q-<level>`.

    Raises:
        ValueError: a column is missing; dates are invalid or duplicate; the step between dates
            cannot be inferred. Names the column or the series.
    """
    read = read_frame(frame, columns)
    found = forecasts_of(model, params, read, horizon, freq=freq, quantiles=quantiles, **options)
    levels = model.config.quantiles if quantiles is None else tuple(quantiles)
    made = rows_of(read, found, levels, freq, horizon, columns)
    return made if isinstance(frame, Mapping) else type(frame)(made)


def forecasts_of(
    model: TimesFM,
    params: Any,
    read: Sequence[Series],
    horizon: int,
    *,
    freq: str | int | None,
    **options: Any,
) -> Forecasts:
    """Forecasts of the series from `read_frame`."""
    series = {one.name: one.values for one in read}
    return forecast(model, params, series, horizon, freq=freq, **options)


def read_frame(frame: Any, columns: tuple[str, str, str] = (ID, TIME, VALUE)) -> list[Series]:
    """The series of a table, each in the order of its dates.

    Raises:
        ValueError: see `forecast_frame`.
    """
    there = list(frame) if isinstance(frame, Mapping) else list(getattr(frame, "columns", ()))
    name, time, value = columns
    if missing := [column for column in (time, value) if column not in there]:
        raise ValueError(f"the table has no column {' and no '.join(missing)}; it has {there}")
    dates = _dates(np.asarray(frame[time]), time)
    try:
        values = np.asarray(frame[value], np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {value}: holds no numbers ({error})") from error
    names = np.full(len(values), ALONE)
    if name in there:
        names = np.asarray([str(one) for one in np.asarray(frame[name])])
    if not len(values):
        raise ValueError("the table has no rows")
    found = []
    for own in dict.fromkeys(names.tolist()):
        rows = np.flatnonzero(names == own)
        rows = rows[np.argsort(dates[rows], kind="stable")]
        moments = dates[rows]
        twice = moments[1:][moments[1:] == moments[:-1]]
        if len(twice):
            raise ValueError(f"{own}: {time} {twice[0]} comes twice")
        found.append(Series(own, moments, values[rows]))
    return found


def rows_of(
    read: Sequence[Series],
    found: Forecasts,
    levels: Sequence[float],
    freq: str | int | None,
    horizon: int,
    columns: tuple[str, str, str] = (ID, TIME, VALUE),
) -> dict[str, Any]:
    """Column -> values of the table of forecasts."""
    frequency = read_frequency(freq) if isinstance(freq, str) else None
    ahead = [_ahead(one, frequency, horizon) for one in read]
    if frequency is not None:
        _warn_of_gaps(read, frequency)
    made: dict[str, Any] = {
        columns[0]: np.repeat([one.name for one in read], horizon),
        columns[1]: np.concatenate(ahead),
        NAME: found.mean[:, -horizon:].reshape(-1),
    }
    for place, level in enumerate(levels):
        made[f"{NAME}-q-{level}"] = found.quantiles[:, -horizon:, place].reshape(-1)
    return made


def read_csv(path: str | Path) -> dict[str, np.ndarray]:
    """Columns of a CSV file with a header; empty cells in a column of numbers are NaN.

    Raises:
        ValueError: there is no header, or a line has another number of cells.
    """
    with Path(path).open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        names = next(lines, None)
        if not names:
            raise ValueError(f"{path}: is empty; expected a line with the names of the columns")
        rows = []
        for row in lines:
            if not row:
                continue
            if len(row) != len(names):
                raise ValueError(
                    f"{path}:{lines.line_num}: {len(row)} cells, the first line has {len(names)}"
                )
            rows.append(row)
    texts = np.asarray(rows, dtype=object).reshape(len(rows), len(names))
    return {name.strip(): _numbers(texts[:, place]) for place, name in enumerate(names)}


def write_csv(path: str | Path | None, table: Mapping[str, Any]) -> str:
    """The table as CSV text; also written to `path` if given."""
    lines = [",".join(table)]
    for row in zip(*(np.asarray(column).tolist() for column in _texts(table)), strict=True):
        lines.append(",".join(map(str, row)))
    text = "\n".join(lines) + "\n"
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def json_columns(table: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Column -> values for JSON: dates as text, numbers in full precision."""
    texts = zip(table.items(), _texts(table), strict=True)
    return {
        name: (text if np.asarray(column).dtype.kind == "M" else np.asarray(column)).tolist()
        for (name, column), text in texts
    }


def _texts(table: Mapping[str, Any]) -> list[np.ndarray]:
    """Columns as in a CSV file: ISO dates, numbers with 7 digits."""
    found = []
    for column in table.values():
        values = np.asarray(column)
        if values.dtype.kind == "M":
            days = values.astype("datetime64[D]")
            values = np.datetime_as_string(days if np.all(days == values) else values)
        elif values.dtype.kind == "f":
            values = np.asarray([f"{value:.7g}" for value in values.tolist()])
        found.append(values)
    return found


def _numbers(cells: np.ndarray) -> np.ndarray:
    """The cells as numbers if all non-empty ones are numbers; else as text."""
    try:
        return np.asarray([float(cell) if cell.strip() else np.nan for cell in cells])
    except ValueError:
        return np.asarray([str(cell) for cell in cells])


def _dates(column: np.ndarray, name: str) -> np.ndarray:
    """The dates of a column, as datetime64 or whole numbers."""
    if column.dtype.kind in "iu":
        return column
    if column.dtype.kind == "f" and np.all(np.isfinite(column)) and np.all(column % 1 == 0):
        return column.astype(np.int64)
    try:
        if column.dtype.kind in "UOS":
            column = np.asarray([np.datetime64(one) for one in column.tolist()])
        dates = column.astype("datetime64")
        dates = dates.astype(np.result_type(dates.dtype, "datetime64[s]"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {name}: holds no dates ({error})") from error
    if np.isnat(dates).any():
        raise ValueError(f"column {name}: row {int(np.argmax(np.isnat(dates)))} has no date")
    return dates


def _ahead(one: Series, frequency: Frequency | None, horizon: int) -> np.ndarray:
    last = one.dates[-1]
    if frequency is not None and one.dates.dtype.kind == "M":
        return dates_ahead(last, frequency, horizon)
    steps = np.diff(one.dates)
    if not len(steps):
        raise ValueError(f"{one.name}: one point tells no step between dates; give freq")
    if frequency is None and one.dates.dtype.kind == "M" and len(set(steps[-10:].tolist())) > 1:
        raise ValueError(f"{one.name}: dates are not evenly spread; give freq, such as 'D' or 'MS'")
    return last + steps[-1] * np.arange(1, horizon + 1)


def _warn_of_gaps(read: Sequence[Series], frequency: Frequency) -> None:
    """Warn of series whose dates have gaps: their points are treated as consecutive."""
    wrong = [
        one.name
        for one in read
        if one.dates.dtype.kind == "M"
        and not np.array_equal(
            dates_ahead(one.dates[0], frequency, len(one.dates) - 1), one.dates[1:]
        )
    ]
    if wrong:
        some = ", ".join(wrong[:SHOWN]) + (" ..." if len(wrong) > SHOWN else "")
        warnings.warn(
            f"{some}: dates are missing, or are not those of freq; each point is taken for the next"
            " one, as the original does",
            UserWarning,
            stacklevel=4,
        )
