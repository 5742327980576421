"""Takes the next training step of a fine-tuned forecaster, and compares the parameters after it."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.forecast import TimesFM, forecast_loss
from efficientids_flax.stored import OptimizerState
from efficientids_flax.train.optimizer import paxml_learner
from efficientids_flax.tree import flatten, unflatten
from parity_tests.compare import NOISE, Difference, distance, judged, tolerance
from parity_tests.forecasters.recorded import ForecasterRecording
from parity_tests.forecasters.run import Runner, layers_apart
from parity_tests.run import renamed
from parity_tests.run.stepping import GRADIENT_ROUNDING, largest_of, updated
from parity_tests.steps import lacking, noise_of, within_reach


def check_step(
    run: Runner,
    recording: ForecasterRecording,
    optimizer: OptimizerConfig | None,
    state: OptimizerState | None,
) -> list[Difference]:
    """Entries for all recorded parameters; one entry 'not run' if the step cannot be taken."""
    base = Difference("step", "expected_next_state", "", "parameters", "ok")
    reason = lacking(optimizer, state)
    if reason is not None:
        return [replace(base, verdict="not run", note=reason)]
    assert optimizer is not None and state is not None
    try:
        learner = paxml_learner(optimizer, run.stored[0])
    except ValueError as error:
        return [replace(base, verdict="not run", note=str(error))]
    slopes, after, reach = _step(run, learner, state)
    noise = NOISE * largest_of(slopes)
    recorded, found = renamed(recording.after, "timesfm"), []
    for path, (values, names) in sorted(recorded.items()):
        own = replace(base, name="+".join(names), ours=path, shape=values.shape)
        if path not in after:
            found.append(replace(own, verdict="MISSING", note="our model has no such parameter"))
            continue
        use = ~noise_of(np.abs(slopes[path]), noise)
        if not use.all():
            count = int(np.sum(~use))
            own = replace(
                own, note=f"{count} values left out: their gradients are zero up to rounding"
            )
        own, use = within_reach(own, after[path], values, reach[path], use)
        gap = distance(after[path], values, use)
        found.append(judged(own, gap, tolerance("parameters", "float32")))
    return found


def _step(
    run: Runner, learner: Any, state: OptimizerState
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Gradients, parameters after the step, and how far the rounding of gradients moves these."""
    config, start = run.stored
    model = TimesFM(config)

    def loss(params: Any) -> Any:
        found: Any = model.apply({"params": params}, *run.inputs, train=True)
        return forecast_loss(config, found.values, run.batch["actual_ts"]).loss

    update = jax.jit(learner.update)
    with jax.default_matmul_precision("highest"):
        slopes = flatten(jax.device_get(jax.jit(jax.grad(loss))(start)))

    def moved(way: float) -> dict[str, np.ndarray]:
        nudged = {path: slope + way * (slope != 0) for path, slope in slopes.items()}
        return updated(start, unflatten(nudged), update, state.optimizer)[0]

    size = GRADIENT_ROUNDING * largest_of(slopes)
    after, *others = (moved(way) for way in (0.0, size, -size))
    reach = {
        path: np.max([np.abs(other[path] - after[path]) for other in others], axis=0)
        for path in after
    }
    first, second, third = (
        flatten(layers_apart(config, unflatten(tree))) for tree in (slopes, after, reach)
    )
    return first, second, third
