"""Measures what freezing the language model saves, in memory and in time per step.

    python -m benchmarks.freezing

The recommender has a language model that is not trained. Five ways to train take turns in one
process. Memory is the compiler's plan: arguments, outputs that do not alias arguments, and
temporaries. Only what a step changes is donated.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import click
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.our_step import clustering_of
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.train.optimizer import create_optimizer, frozen_mask, merge, partition

FROZEN = ("pretrained_lm",)
RATE, DECAY, CLIP = 1e-3, 1e-4, 1.0
WORDS, ITEM_WIDTH = 1024, 64


class Way(NamedTuple):
    """One way to train.

    Attributes:
        name: name of its line.
        optimizer: optimizer of the parameters that are differentiated.
        split: whether frozen parameters are excluded from differentiation.
        dtype: dtype of the frozen parameters.
        remat: whether activations are recomputed in the backward pass.
    """

    name: str
    optimizer: optax.GradientTransformation
    split: bool = False
    dtype: str = "float32"
    remat: bool = False


def ways(params: Any) -> list[Way]:
    """All ways; the first is the baseline."""
    labels = jax.tree.map(lambda f: "frozen" if f else "trained", frozen_mask(params, FROZEN))

    def adamw(**options: Any) -> Any:
        return create_optimizer(RATE, "adamw", DECAY, **options)

    def set_to_zero(trained: Any) -> Any:
        return optax.multi_transform({"trained": trained, "frozen": optax.set_to_zero()}, labels)

    ours = adamw(clip_grad_norm=CLIP, frozen_params=FROZEN)
    return [
        Way("all trained", adamw(clip_grad_norm=CLIP)),
        Way("set_to_zero, clip inside", set_to_zero(adamw(clip_grad_norm=CLIP))),
        Way(
            "set_to_zero after the clip",
            optax.chain(optax.clip_by_global_norm(CLIP), set_to_zero(adamw())),
        ),
        Way("frozen_params, split", ours, split=True),
        Way("the same, bfloat16 and remat", ours, split=True, dtype="bfloat16", remat=True),
    ]


def step_of(way: Way, config: EfficientIDSConfig, rows: int, length: int) -> tuple[Any, Any]:
    """(A function that runs one step, the compiled step)."""
    clusters = config.num_clusters or 1
    model = EfficientIDSModel(
        config=config,
        clustering_info=clustering_of(config.num_items, clusters, config.item_embedding_dim),
        remat="nothing_saveable" if way.remat else None,
    )
    rng, shape = np.random.default_rng(1), (rows, length)
    ids = rng.integers(0, config.num_items, shape, dtype=np.int32)
    ones = ("weights", "input_item_weights", "label_item_weights")
    batch: dict[str, Any] = {"ids": ids, "labels": ids, "paddings": jnp.zeros(shape)}
    batch |= {name: jnp.ones(shape) for name in ones}
    params = jax.jit(lambda: model.init(jax.random.key(0), batch, method=model.loss))()["params"]
    trained, frozen = partition(params, FROZEN) if way.split else (params, {})
    frozen = jax.tree.map(lambda leaf: leaf.astype(way.dtype), frozen)

    def step(trained: Any, state: Any, frozen: Any) -> Any:
        def loss(trained: Any) -> jax.Array:
            variables = {"params": merge(trained, frozen)}
            found: Any = model.apply(variables, batch, method=model.loss)
            return found.loss

        value, gradients = jax.value_and_grad(loss)(trained)
        updates, state = way.optimizer.update(gradients, state, trained)
        return optax.apply_updates(trained, updates), state, value

    state = way.optimizer.init(trained)
    held = [trained, state]
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(trained, state, frozen).compile()

    def run() -> None:
        *held[:], value = compiled(*held, frozen)
        value.block_until_ready()

    return run, compiled


def memory(compiled: Any) -> float:
    """Bytes of memory in the compiler's plan."""
    plan = compiled.memory_analysis()
    results = plan.output_size_in_bytes - plan.alias_size_in_bytes
    return plan.argument_size_in_bytes + results + plan.temp_size_in_bytes


def seconds(function: Callable[[], None]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def config_of(width: int, layers: int, items: int) -> EfficientIDSConfig:
    """A Llama-like model of this width and depth."""
    heads = max(width // 64, 1)
    backbone = BackboneConfig(
        vocab_size=WORDS, num_layers=layers, model_dims=width, hidden_dims=4 * width,
        num_heads=heads, num_kv_heads=heads, head_dim=width // heads, scan_layers=True,
        gated_mlp=True, activation="silu",
    )  # fmt: skip
    clusters = max(round(items**0.5), 1)
    return EfficientIDSConfig(
        backbone=backbone, num_items=items, item_embedding_dim=ITEM_WIDTH, num_clusters=clusters
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--width", type=click.IntRange(64), default=256)
@click.option("--layers", type=click.IntRange(1), default=8)
@click.option("--items", type=click.IntRange(1), default=2000)
@click.option("--rows", type=click.IntRange(1), default=4, help="Rows of a batch.")
@click.option("--length", type=click.IntRange(1), default=64, help="Length of a row.")
@click.option("--rounds", type=click.IntRange(1), default=9)
def main(width: int, layers: int, items: int, rows: int, length: int, rounds: int) -> None:
    """Print memory and median time per step of each way, and both by those of the first."""
    config = config_of(width, layers, items)
    clustering = clustering_of(items, config.num_clusters or 1, ITEM_WIDTH)
    model = EfficientIDSModel(config=config, clustering_info=clustering)
    ids = jnp.zeros((1, 2), jnp.int32)
    shapes = jax.eval_shape(lambda key: model.init(key, ids, ids, ids)["params"], jax.random.key(0))
    counts = [
        sum(leaf.size for leaf in jax.tree.leaves(part)) / 1e6 for part in partition(shapes, FROZEN)
    ]
    click.echo(
        f"{counts[1]:.2f}M parameters in the language model, {counts[0]:.2f}M others; batch"
        f" {rows} x {length}; {jax.devices()[0].platform}; median of {rounds} rounds\n\n"
        "| way | MiB | ms a step | MiB, ratio | ms, ratio |\n| --- | ---: | ---: | ---: | ---: |"
    )
    chosen = ways(shapes)
    steps = [step_of(way, config, rows, length) for way in chosen]
    for run, _ in steps:
        run()
    times = [[seconds(run) for run, _ in steps] for _ in range(rounds)]
    middle = [1e3 * median(column) for column in zip(*times, strict=True)]
    sizes = [memory(compiled) / 2**20 for _, compiled in steps]
    for way, size, taken in zip(chosen, sizes, middle, strict=True):
        click.echo(
            f"| {way.name} | {size:.0f} | {taken:.0f} | {size / sizes[0]:.2f} |"
            f" {taken / middle[0]:.2f} |"
        )


if __name__ == "__main__":
    main()
