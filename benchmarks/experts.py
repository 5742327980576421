"""A mixture that sends a token to 2 of 8 experts, against a dense MLP of the two experts' size.

    python -m benchmarks.experts

Both layers take turns on the same tokens in float32. Prints the ratio of the median CPU times of
all threads (wall time means little on a busy machine), forward and with gradients.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import click
import jax
import jax.numpy as jnp

from benchmarks.measure import processor
from benchmarks.turns import turns
from efficientids_flax.backbone.experts import TopKExperts
from efficientids_flax.backbone.layers import Mlp
from efficientids_flax.config import BackboneConfig, MoEConfig

EXPERTS, CHOSEN = 8, 2
TOKENS = (512, 2048, 4096)


def layers(width: int, hidden: int) -> Mapping[str, Any]:
    """The mixture, and an MLP as wide as the chosen experts of a token together."""
    moe = MoEConfig(
        num_experts=EXPERTS, layers=(0,), hidden_dims=hidden, gated=True, activation="silu",
        gating="top_k", experts_per_token=CHOSEN, renormalize=True,
    )  # fmt: skip
    config = BackboneConfig(
        vocab_size=2, num_layers=1, model_dims=width, hidden_dims=CHOSEN * hidden, num_heads=1,
        num_kv_heads=1, head_dim=width, gated_mlp=True, activation="silu", kernel_axes="out_in",
        moe=moe,
    )  # fmt: skip
    return {"mixture": TopKExperts(config), "dense": Mlp(config)}


def measured(width: int, hidden: int, tokens: int, rounds: int) -> tuple[float, float]:
    """Ratio of CPU times, mixture to dense MLP: (forward, with gradients)."""
    x = jax.random.normal(jax.random.key(0), (1, tokens, width))
    paddings = jnp.zeros((1, tokens))
    ratios = []
    for gradients in (False, True):
        steps: dict[str, Callable[[], Any]] = {}
        for name, layer in layers(width, hidden).items():
            params = jax.jit(layer.init)(jax.random.key(1), x, paddings)

            def forward(params: Any, x: jax.Array, layer: Any = layer) -> jax.Array:
                return jnp.sum(jnp.square(layer.apply(params, x, paddings)))

            step = jax.jit(jax.value_and_grad(forward, (0, 1)) if gradients else forward)
            steps[name] = lambda step=step, params=params: step(params, x)
        took = turns(steps, rounds, clock=time.process_time)
        ratios.append(median(took["mixture"]) / median(took["dense"]))
    return ratios[0], ratios[1]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--width", default=512, show_default=True, help="D of the model.")
@click.option("--hidden", default=1024, show_default=True, help="F of an expert.")
@click.option("--rounds", default=9, show_default=True, help="Measured steps of each layer.")
def main(width: int, hidden: int, rounds: int) -> None:
    """Print a line for each number of tokens."""
    click.echo(f"{processor()}; {CHOSEN} of {EXPERTS} experts of {width} x {hidden}")
    for tokens in TOKENS:
        forward, both = measured(width, hidden, tokens, rounds)
        click.echo(f"{tokens:>5} tokens: forward {forward:.2f}, with gradients {both:.2f}")


if __name__ == "__main__":
    main()
