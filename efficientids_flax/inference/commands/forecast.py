"""The command `forecast`: a table of series in, a table of what follows out."""

from pathlib import Path
from typing import Any

import click

from efficientids_flax.commands import combined, command, echo
from efficientids_flax.commands.options import Real, choice, compute_dtype, count

OPTIONS = combined(
    click.option("--input", "source", required=True, metavar="FILE", help="A CSV file of series."),
    click.option("--horizon", type=click.IntRange(min=1), required=True,
                 help="How many points to forecast."),
    click.option("--freq", metavar="WORD", help="Frequency: D, H, W, MS, QS, Y ..."),
    click.option("--output", metavar="FILE", help="Write the table to this file (default: print "
                                                  "it)."),
    click.option("--plot", metavar="FILE", help="Plot the first series and their forecasts."),
    click.option("--id-column", default="unique_id", show_default=True, help="Column of series "
                                                                             "names."),
    click.option("--time-column", default="ds", show_default=True, help="Column of dates, or "
                                                                        "whole numbers."),
    click.option("--value-column", default="y", show_default=True, help="Values."),
    click.option("--quantile", "quantiles", type=Real(), multiple=True,
                 help="A quantile to print (default: all). Repeatable."),
    choice("--point", ("mean", "median"), "The point forecast.", "mean"),
    click.option("--context-length", type=int, help="Use only the last N points."),
    click.option("--normalize", is_flag=True, help="Normalise each series first."),
    click.option("--truncate-negative", is_flag=True,
                 help="No negative forecasts if no series has a negative point."),
    click.option("--window-size", type=int, help="Forecast a moving average and the remainder "
                                                 "separately."),
    choice("--statistics", ("moments", "centred"),
           "Formula to normalise a series (default: as configured)."),
    count("--batch-size", "Series at a time.", 32),
    compute_dtype,
)  # fmt: skip


@command("forecast")
@click.argument("checkpoint")  # a missing one is bad input (exit 1), not bad usage
@OPTIONS
def forecast(
    checkpoint: str, source: str, horizon: int, freq: str | None, output: str | None,
    plot: str | None, dtype: str | None, as_json: bool, quantiles: tuple[float, ...],
    statistics: str | None, **given: Any,
) -> None:  # fmt: skip
    """Forecast the series of a table with the TimesFM model CHECKPOINT.

    CHECKPOINT is the output of `convert`, `convert-hf` or `export`. The table has one row for each
    point: the name of its series, its date and its value.
    """
    from dataclasses import replace

    from efficientids_flax.forecast import TimesFM
    from efficientids_flax.forecast.frames import (
        forecasts_of,
        json_columns,
        read_csv,
        read_frame,
        rows_of,
        write_csv,
    )
    from efficientids_flax.forecast.frequency import read_frequency
    from efficientids_flax.forecast.plot import dates_of, plot_forecasts
    from efficientids_flax.stored import load_model

    columns = tuple(given.pop(f"{name}_column") for name in ("id", "time", "value"))
    if freq is not None:  # told before anything is loaded
        try:
            read_frequency(freq)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--freq") from error
    read = read_frame(read_csv(source), columns)
    model, params, _ = load_model(checkpoint, dtype=dtype)
    if not isinstance(model, TimesFM):
        raise ValueError(f"{checkpoint}: is no forecaster")
    if statistics is not None:
        model = TimesFM(replace(model.config, statistics=statistics))
    levels = quantiles or model.config.quantiles
    found = forecasts_of(model, params, read, horizon, freq=freq, quantiles=levels, **given)
    table = rows_of(read, found, levels, freq, horizon, columns)
    text = write_csv(output, table)
    if plot is not None:
        Path(plot).parent.mkdir(parents=True, exist_ok=True)
        plot_forecasts(plot, read, found, dates_of(table, columns[1], len(read)))
    told = f"{len(read)} series, {horizon} points each" + (f": {output}" if output else "")
    echo(as_json, json_columns(table), told if output else text.rstrip("\n"), remark=bool(output))
