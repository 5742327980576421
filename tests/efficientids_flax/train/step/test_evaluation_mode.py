"""No dropout in an evaluation, however the loss function and the module say that they train."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from efficientids_flax.train.trainer import Trainer

ROWS = {"x": np.ones((8, 32), np.float32)}


def layers(x, training):
    x = nn.Dense(32, kernel_init=nn.initializers.ones)(x)
    return nn.Dropout(0.5, deterministic=not training)(x)


class Second(nn.Module):
    @nn.compact
    def __call__(self, x, training):
        return layers(x, training)


class Defaulted(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        return layers(x, train)


class Named(nn.Module):
    @nn.compact
    def __call__(self, x, *, is_training):
        return Defaulted()(x, is_training)


class Fixed(nn.Module):
    """Draws always, and takes its arguments as they come."""

    @nn.compact
    def __call__(self, *args):
        return layers(args[0], True)


class Hidden(nn.Module):
    """A layer that is not told whether it trains."""

    @nn.compact
    def __call__(self, x):
        return Defaulted()(x)

    def other(self, x, deterministic):
        return self(x) + jnp.where(deterministic, 0.0, jnp.arange(8.0)[:, None])


class Built(nn.Module):
    """Trains, since it was built to."""

    training: bool = True

    @nn.compact
    def __call__(self, x):
        x = layers(x, self.training)
        return x + jnp.arange(8.0)[:, None] if self.training else x


class Around(nn.Module):
    def setup(self):
        self.inner = Built(training=True)

    def __call__(self, x):
        return self.inner(x)


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        layer = nn.MultiHeadDotProductAttention(2, dropout_rate=0.9, qkv_features=32)
        return layer(x[:, None], deterministic=deterministic)


class Pair(nnx.Module):
    def __init__(self):
        self.linear = nnx.Linear(32, 32, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(1))

    def __call__(self, x, training=True):
        return self.dropout(self.linear(x), deterministic=not training)

    def other(self, x, deterministic):
        return self(x, not deterministic)


class Holder(nnx.Module):
    """Says in its own way whether it trains, or nothing at all."""

    def __init__(self):
        self.pair = Pair()

    def __call__(self, x, how="train"):
        return self.pair(x, how == "train")

    def silent(self, x):
        return self.pair(x) + self.pair.dropout(x, deterministic=False)


CASES = {
    "position": (Second, lambda call, x: call(x, True)),
    "default": (Defaulted, lambda call, x: call(x)),
    "name": (Named, lambda call, x: call(x, is_training=True)),
    "fixed": (Fixed, lambda call, x: call(x, True)),
    "hidden": (Hidden, lambda call, x: call(x)),
    "method": (Hidden, lambda call, x: call(x, False, method="other")),
    "field": (Built, lambda call, x: call(x)),
    "field of a layer": (Around, lambda call, x: call(x)),
    "attention": (Attention, lambda call, x: call(x, False)),
    "nnx position": (Pair, lambda call, x: call(x, True)),
    "nnx default": (Pair, lambda call, x: call(x)),
    "nnx name": (Pair, lambda call, x: call(x, training=True)),
    "nnx method": (Pair, lambda call, x: call(x, False, method="other")),
    "nnx layer": (Holder, lambda call, x: call(x)),
    "nnx layers": (Holder, lambda call, x: call(x, method="silent")),
    "nnx function": (Pair, lambda call, x: call(x, True, method=lambda m, x, train: m(x, train))),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_evaluation_draws_nothing(name):
    kind, run = CASES[name]

    def loss_fn(params, batch, model_state, rng, apply_fn):
        def call(*args, **named):
            return apply_fn({"params": params}, *args, rngs={"dropout": rng}, **named)

        value = run(call, batch["x"])
        return jnp.mean(value), {"spread": jnp.std(value, axis=0).sum()}, model_state

    made = Trainer(kind(), optax.sgd(0.1), loss_fn=loss_fn, progress="none")
    state = made.create_train_state(jax.random.key(0), ROWS)
    assert made.evaluate(state, [ROWS])["eval_spread"] < 1e-5  # rows are equal


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, ())
        return scale * x + jax.random.normal(self.make_rng("dropout"), x.shape)


class NoisyNNX(nnx.Module):
    def __init__(self):
        self.scale, self.rngs = nnx.Param(jnp.ones(())), nnx.Rngs(dropout=0)

    def __call__(self, x):
        return self.scale * x + jax.random.normal(self.rngs.dropout(), x.shape)


@pytest.mark.parametrize("kind", [Noisy, NoisyNNX])
def test_noise_that_a_module_draws_itself_is_said(kind):
    def loss_fn(params, batch, model_state, rng, apply_fn):
        value = apply_fn({"params": params}, batch["x"], rngs={"dropout": rng})
        return jnp.mean(value), {}, model_state

    made = Trainer(kind(), optax.sgd(0.1), loss_fn=loss_fn, progress="none")
    state = made.create_train_state(jax.random.key(0), ROWS)
    with pytest.warns(UserWarning, match=f"{kind.__name__}: draws random numbers.*from dropout"):
        made.evaluate(state, [ROWS])


def mean_with_statistics(params, batch, model_state, rng, apply_fn):
    value, model_state = apply_fn(
        {"params": params, **model_state}, batch["x"], mutable=["batch_stats"]
    )
    return jnp.mean(value), {}, model_state


class Statistics(nn.Module):
    train: bool = True

    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=not self.train)(x)


def test_a_module_that_was_built_to_train_is_measured_and_given_back_as_it_is_served():
    made = Trainer(Statistics(), optax.sgd(0.1), loss_fn=mean_with_statistics, progress="none")
    state = made.create_train_state(jax.random.key(0), ROWS)
    wanted = float(jnp.mean(Statistics(train=False).apply(state.variables, ROWS["x"])))
    assert wanted > 0.9  # the running mean is 0, that of the batch is 1
    assert made.evaluate(state, [ROWS])["eval_loss"] == pytest.approx(wanted)
    assert float(jnp.mean(made.module(state)(ROWS["x"]))) == pytest.approx(wanted)


class Normed(nnx.Module):
    def __init__(self):
        self.norm = nnx.BatchNorm(32, rngs=nnx.Rngs(0))

    def __call__(self, x, how="train"):
        return self.norm(x, use_running_average=how != "train")


def test_statistics_of_an_nnx_module_are_the_running_ones():
    made = Trainer(Normed(), optax.sgd(0.1), loss_fn=mean_with_statistics, progress="none")
    state = made.create_train_state(jax.random.key(0), ROWS)
    assert made.evaluate(state, [ROWS])["eval_loss"] > 0.9  # 0 by those of the batch


@pytest.mark.parametrize("weights", [[0, 0], [1, 0], [0, 1]])
def test_rows_without_a_weight_do_not_count(weights):
    """A mean over no label is NaN; it counts for nothing, and alone it is not measured."""

    def loss_fn(params, batch, model_state, rng, apply_fn):
        loss = jnp.sum(batch["w"] * batch["x"][:, 0]) / jnp.sum(batch["w"])
        return loss + 0.0 * params["bias"].sum(), {"total_weight": jnp.sum(batch["w"])}, model_state

    made = Trainer(nn.Dense(2), optax.sgd(0.1), loss_fn=loss_fn, init_args=[ROWS["x"]],
                   progress="none")  # fmt: skip
    state = made.create_train_state(jax.random.key(0), {**ROWS, "w": np.ones(8, np.float32)})
    batches = [{**ROWS, "w": np.full(8, weight, np.float32)} for weight in weights]
    if any(weights):
        assert made.evaluate(state, batches) == {"eval_loss": 1.0}
    else:
        with pytest.warns(UserWarning, match="no label has a weight; eval_loss are NaN"):
            assert np.isnan(made.evaluate(state, batches)["eval_loss"])
