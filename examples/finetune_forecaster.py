"""Fine-tune a forecaster on monthly airline passengers, and compare with repeating last year.

    python examples/finetune_forecaster.py MODEL --plot passengers.png

MODEL is the output of `efficientids convert` for a TimesFM checkpoint. The data are Box and
Jenkins' (1976), thousands of passengers by month, 1949 to 1960; the last year is held out.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import optax

from efficientids_flax import Trainer, load_model
from efficientids_flax.forecast import TimesFM, forecast, training_windows
from efficientids_flax.forecast.frames import Series, read_csv, read_frame
from efficientids_flax.forecast.plot import plot_forecasts
from efficientids_flax.train.batches import ShuffledBatches

DATA = Path(__file__).parent / "data" / "air_passengers.csv"
YEAR = 12


def main() -> None:
    """Train, forecast, print and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("model", help="what `efficientids convert` wrote")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--context", type=int, default=72, help="months that a forecast looks at")
    parser.add_argument("--plot", help="picture to draw")
    given = parser.parse_args()

    (series,) = read_frame(read_csv(DATA))
    known, future = series.values[:-YEAR], series.values[-YEAR:]
    loaded, params, _ = load_model(given.model)
    assert isinstance(loaded, TimesFM)
    patch = loaded.config.patch_length
    context = max(given.context // patch, 1) * patch
    model = TimesFM(replace(loaded.config, context_length=context, statistics="centred"))

    # The loss is in the units of the series; scale them near one for the optimizer.
    scale = float(np.std(known))
    windows = training_windows([known / scale], context, YEAR, freq=1)
    batches = ShuffledBatches(windows, 32)
    schedule = optax.cosine_decay_schedule(given.rate, given.steps)
    trainer = Trainer(
        model, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)), progress="none"
    )
    state = trainer.create_train_state(jax.random.key(0), next(iter(batches)), params=params)
    untrained = forecast(model, params, [known], YEAR, freq=1)
    state = trainer.train(state, batches, num_steps=given.steps)
    trained = forecast(model, state.params, [known], YEAR, freq=1)

    season = known[-YEAR:]
    for name, made in (
        ("last season again", season),
        ("before", untrained.mean[0]),
        ("after", trained.mean[0]),
    ):
        print(f"{name:18s}mean absolute error {np.mean(np.abs(made - future)):6.1f}")
    if given.plot:
        shown = Series(series.name, series.dates[:-YEAR], known)
        plot_forecasts(given.plot, [shown], trained, [series.dates[-YEAR:]], baseline=season[None])


if __name__ == "__main__":
    main()
