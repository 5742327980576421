"""Compiles the gradient step of decoders of several depths, with scanned and with separate layers.

    python -m benchmarks.compile_time

Prints the time to trace and compile, relative to the same model with four scanned layers in the
same run.
"""

import time

import click
import jax
import jax.numpy as jnp

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig

DEPTHS = (4, 16, 64)


def compile_seconds(depth: int, scan: bool) -> float:
    """Seconds to trace and compile loss and gradients, without a cache."""
    config = BackboneConfig(
        vocab_size=256, num_layers=depth, model_dims=64, hidden_dims=128, num_heads=4,
        num_kv_heads=4, head_dim=16, scan_layers=scan, gated_mlp=True, activation="silu",
    )  # fmt: skip
    decoder = Decoder(config)
    ids = jnp.zeros((2, 32), jnp.int32)

    def loss(params: dict) -> jax.Array:
        def run(module: Decoder) -> jax.Array:
            return jnp.sum(module.logits(module(ids)))

        found = decoder.apply(params, method=run)
        assert isinstance(found, jax.Array)
        return found

    params = jax.eval_shape(
        lambda: decoder.init(
            jax.random.key(0), ids, method=lambda module, ids: module.logits(module(ids))
        )
    )
    jax.clear_caches()
    started = time.perf_counter()
    jax.jit(jax.grad(loss)).lower(params).compile()
    return time.perf_counter() - started


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Print a line for each depth."""
    compile_seconds(1, True)  # excludes imports and first use
    first = compile_seconds(DEPTHS[0], True)
    for depth in DEPTHS:
        scanned = compile_seconds(depth, True) / first
        separate = compile_seconds(depth, False) / first
        click.echo(f"{depth:>3} layers: scanned {scanned:.2f}, separate {separate:.2f}")


if __name__ == "__main__":
    main()
