"""Clipping of gradients and updates, and the test for steps to skip.

`paxml.learners.Learner.scale_gradients` 1.4.0 for gradients, praxis/optimizers.py for updates.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from efficientids_flax.config import OptimizerConfig
from efficientids_flax.train.optimizer.variables import Variables

# Praxis sums larger arrays by rows first: one running float32 sum would lose small terms.
LARGE = 1e8


def clip_gradients(
    gradients: Mapping[str, jax.Array], config: OptimizerConfig, variables: Variables
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Clip gradients by their norms, and decide whether the step may be taken.

    Args:
        gradients: path -> gradient, of trained parameters only; frozen ones must not count.
        config: the kind of clip, and the norm from which a step is skipped.
        variables: parameters with the same name share one norm under
            `clip_gradient_single_norm_to_value`, as PAXml takes it over all layers of a repeated
            variable.

    Returns:
        (clipped gradients, bool []): False if the global norm before the clip is not finite, or not
        below `skip_step_gradient_norm_value`.
    """
    squares = {path: jnp.sum(g * g) for path, g in gradients.items()}
    norm = _root(list(squares.values()))
    valid = jnp.isfinite(norm)
    if config.skip_step_gradient_norm_value:
        valid &= norm < config.skip_step_gradient_norm_value
    if limit := config.clip_gradient_norm_to_value:
        scale = jnp.minimum(1.0, limit / norm)
        return {path: g * scale for path, g in gradients.items()}, valid
    if limit := config.clip_gradient_single_norm_to_value:
        shared: dict[str, list[jax.Array]] = {}
        for path, square in squares.items():
            shared.setdefault(variables(path).name, []).append(square)
        scales = {name: jnp.minimum(1.0, limit / _root(sums)) for name, sums in shared.items()}
        return {path: g * scales[variables(path).name] for path, g in gradients.items()}, valid
    return dict(gradients), valid


def clip_by_rms(update: jax.Array, threshold: float, *, sticky: bool) -> jax.Array:
    """`update / max(1, RMS / threshold)`: Adafactor's clip of updates (arXiv 1804.04235, 6).

    Args:
        update: update of one variable, any shape.
        threshold: largest root mean square that is not clipped.
        sticky: an infinite RMS makes the result NaN, not 0.
    """
    return update / inf_to_nan(jnp.maximum(1.0, rms(update) / threshold), sticky)


def rms(values: jax.Array) -> jax.Array:
    """Root mean square, a scalar."""
    return jnp.sqrt(mean(jnp.square(values)))


def mean(values: jax.Array) -> jax.Array:
    """Mean over all elements, a scalar; large arrays are summed by rows first."""
    if values.size > LARGE:
        return jnp.sum(jnp.sum(values, axis=-1)) / values.size
    return jnp.mean(values)


def inf_to_nan(values: jax.Array, sticky: bool) -> jax.Array:
    """NaN for infinities if `sticky` (Praxis `maybe_inf_to_nan`), so that no 1/x hides them."""
    return jnp.where(jnp.isinf(values), jnp.nan, values) if sticky else values


def _root(squares: list[jax.Array]) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.stack(squares))) if squares else jnp.float32(0)
