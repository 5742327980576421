"""Layers that are scanned, or computed again in the backward pass, are the same model."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import MoEConfig
from tests.efficientids_flax.backbone.small_decoders import (
    LLAMA,
    VARIANTS,
    hidden,
    made,
    token_ids,
)
from tests.efficientids_flax.compiled import applied


def stacked(config, params):
    """Parameters of separate layers for a decoder that scans them."""
    count = config.layers_per_block
    layers = [params[f"layers_{index}"] for index in range(config.num_layers)]
    blocks = [
        jax.tree.map(lambda *leaves: np.stack(leaves), *layers[place::count])
        for place in range(count)
    ]
    rest = {key: value for key, value in params.items() if not key.startswith("layers_")}
    inner = blocks[0] if count == 1 else {f"block_{j}": block for j, block in enumerate(blocks)}
    return rest | {"layers": inner}


def loss_of(config, ids, remat=None):
    def loss(params):
        def run(module):
            return module.logits(module(ids))

        logits = Decoder(config, remat).apply({"params": params}, method=run)
        return jnp.mean(jnp.sin(logits))

    return loss


def assert_same_gradients(found, wanted):
    def compare(one, other):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)

    jax.tree.map(compare, found, wanted)


@partial(jax.jit, static_argnames=("config", "remat"))
def step(config, params, ids, remat=None):
    """Loss and gradients; compiled once for all tests of a configuration."""
    return jax.value_and_grad(loss_of(config, ids, remat))(params)


@pytest.mark.parametrize("name", ["scanned", "windows by layer, scanned in blocks"])
def test_scanned_layers_are_separate_ones(name):
    config = VARIANTS[name]
    separate = replace(config, scan_layers=False, layers_per_block=1)
    params, ids = made(separate), token_ids(config, 2, 7)
    wanted, gradient = step(separate, params, ids)
    found, scanned = step(config, stacked(config, params), ids)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert_same_gradients(scanned, stacked(config, gradient))


@pytest.mark.parametrize("name", ["llama", "scanned", "windows by layer, scanned in blocks"])
@pytest.mark.parametrize("policy", ["nothing_saveable", "dots_with_no_batch_dims_saveable"])
def test_rematerialisation_changes_no_number(name, policy):
    config = VARIANTS[name]
    params, ids = made(config), token_ids(config, 2, 7)
    wanted, gradient = step(config, params, ids)
    found, again = step(config, params, ids, policy)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert_same_gradients(again, gradient)


def equations(function, *args):
    """How many there are in what is compiled, inner ones too."""

    def count(jaxpr):
        total = 0
        for equation in jaxpr.eqns:
            total += 1
            for value in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
            ):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    total += count(inner)
        return total

    return count(jax.make_jaxpr(function)(*args).jaxpr)


@pytest.mark.parametrize("remat", [None, "nothing_saveable"])
def test_what_is_compiled_does_not_grow_with_scanned_layers(remat):
    def size(config):
        ids = jnp.zeros((1, 4), int)
        return equations(jax.grad(loss_of(config, ids, remat)), made(config))

    scanned = replace(LLAMA, scan_layers=True, num_layers=2)
    assert size(scanned) == size(replace(scanned, num_layers=12))
    assert size(replace(LLAMA, num_layers=4)) > size(LLAMA) > 0


def test_dropout_draws_anew_in_each_scanned_layer_and_stops_when_deterministic():
    config = replace(LLAMA, scan_layers=True, residual_dropout=0.5, mlp_dropout=0.5)
    params, ids = made(config), token_ids(config, 1, 6)
    decoder = Decoder(config, "nothing_saveable")

    @partial(jax.jit, static_argnums=1)
    def run(seed, deterministic=False):
        return decoder.apply(
            {"params": params}, ids, deterministic=deterministic,
            rngs={"dropout": jax.random.key(seed)},
        )  # fmt: skip

    assert not np.allclose(run(0), run(1))
    np.testing.assert_array_equal(run(0), run(0))
    np.testing.assert_allclose(run(0, True), hidden(config, params, ids), rtol=1e-4, atol=1e-5)


def test_experts_report_their_losses_from_scanned_blocks():
    config = replace(
        LLAMA,
        num_layers=4,
        scan_layers=True,
        layers_per_block=2,
        moe=MoEConfig(num_experts=4, layers=(1, 3), hidden_dims=8),
    )
    variables, ids = {"params": made(config)}, token_ids(config, 2, 8)
    _, state = applied(Decoder(config), variables, ids, mutable=["aux_losses"])
    (losses,) = jax.tree.leaves(state)
    assert losses.shape == (2,)
    assert (losses > 0).all()
