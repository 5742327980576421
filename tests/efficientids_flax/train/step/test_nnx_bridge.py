"""NNX modules under Linen's calls: what goes in, what comes back, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from efficientids_flax.train.step.nnx_bridge import NNXBridge
from efficientids_flax.tree import flatten
from tests.efficientids_flax.train.networks import CLASSES, WIDTH, data
from tests.efficientids_flax.train.nnx_networks import classifier, normalised, values

KEY = jax.random.key(5)
X = data()["x"]


def test_variables_are_linens_collections_by_path():
    bridge = NNXBridge(normalised())
    assert {name: set(flatten(tree)) for name, tree in bridge.variables.items()} == {
        "params": {
            "first/bias", "first/kernel", "norm/bias", "norm/scale", "last/bias", "last/kernel",
        },
        "batch_stats": {"norm/mean", "norm/var"},
    }  # fmt: skip
    bridge = NNXBridge(classifier())
    assert set(bridge.variables) == {"params"}
    assert flatten(bridge.variables["params"])["net/layers/3/kernel"].shape == (8, CLASSES)


@pytest.mark.parametrize("make", [classifier, normalised])
def test_computes_what_the_module_computes(make):
    bridge, module = NNXBridge(make()), make()
    module.eval()
    found = bridge.evaluating().apply(bridge.variables, X)
    np.testing.assert_array_equal(found, module(X))
    doubled = jax.tree.map(lambda x: 2 * x, bridge.variables)
    nnx.update(module, jax.tree.map(lambda x: 2 * x, nnx.state(module, nnx.Not(nnx.RngState))))
    np.testing.assert_array_equal(bridge.evaluating().apply(doubled, X), module(X))
    np.testing.assert_array_equal(bridge.apply(doubled, X, training=False), module(X))
    np.testing.assert_array_equal(bridge.apply(doubled, X, deterministic=True), module(X))


def test_the_given_module_stays_as_it_is():
    module = normalised()
    before = [np.array(leaf) for leaf in values(module)]
    bridge = NNXBridge(module)
    bridge.apply(bridge.variables, X, rngs={"dropout": KEY}, mutable=["batch_stats"])
    assert all(np.array_equal(a, b) for a, b in zip(values(module), before, strict=True))
    kernel = np.array(module.first.kernel[...])
    module.first.kernel[...] = jnp.zeros((WIDTH, 8))
    module.eval()
    np.testing.assert_array_equal(bridge.variables["params"]["first"]["kernel"], kernel)
    assert not np.array_equal(bridge.apply(bridge.variables, X, training=False), module(X))


def test_dropout_draws_from_the_key_that_is_given():
    bridge = NNXBridge(classifier())

    def outputs(seed, **named):
        rngs = {"dropout": jax.random.key(seed)}
        return np.asarray(bridge.apply(bridge.variables, X, rngs=rngs, **named))

    assert np.array_equal(outputs(0), outputs(0, training=True))
    assert np.array_equal(outputs(0), outputs(0, train=True))
    assert not np.array_equal(outputs(0), outputs(1))
    assert np.array_equal(outputs(0, training=False), outputs(1, training=False))
    alone = bridge.apply(bridge.variables, X, rngs=jax.random.key(0))
    assert np.array_equal(outputs(0), alone)
    raw = bridge.apply(bridge.variables, X, rngs={"dropout": jax.random.PRNGKey(0)})
    assert np.array_equal(outputs(0), raw)


def test_layers_of_the_same_shape_drop_other_numbers():
    class Two(nnx.Module):
        def __init__(self, rngs):
            self.left = nnx.Dropout(0.5, rngs=rngs)
            self.right = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.left(x), self.right(x)

    for rngs in (nnx.Rngs(0), nnx.Rngs(params=0, dropout=1)):
        left, right = NNXBridge(Two(rngs)).apply({}, jnp.ones((64,)), rngs={"dropout": KEY})
        assert not np.array_equal(left, right)


def test_each_stream_draws_from_the_key_of_its_name():
    class Two(nnx.Module):
        def __init__(self, rngs):
            self.dropout = nnx.Dropout(0.5, rngs=rngs)
            self.noise = rngs.noise.fork()

        def __call__(self, x):
            return self.dropout(x), jax.random.normal(self.noise())

    bridge = NNXBridge(Two(nnx.Rngs(dropout=0, noise=1)))

    def call(dropout, noise):
        keys = {"dropout": jax.random.key(dropout), "noise": jax.random.key(noise)}
        return bridge.apply({}, jnp.ones((64,)), rngs=keys)

    (mask, noise), (same_mask, other_noise), (other_mask, same_noise) = (
        call(0, 0), call(0, 1), call(1, 0),
    )  # fmt: skip
    assert np.array_equal(mask, same_mask) and not np.array_equal(mask, other_mask)
    assert noise == same_noise and noise != other_noise


def test_a_loss_function_that_gives_no_key_draws_from_its_own():
    bridge = NNXBridge(classifier())

    def loss(params, batch, model_state, rng, apply_fn):
        variables = {"params": params, **model_state}
        return apply_fn(variables, batch["x"]), apply_fn(variables, batch["x"]), model_state

    def call(seed):
        return bridge.drawing(loss)(
            bridge.variables["params"], {"x": X}, {}, jax.random.key(seed), bridge.apply
        )

    first, second, _ = call(0)
    assert not np.array_equal(first, second)  # two calls, two masks, as in NNX
    assert np.array_equal(first, call(0)[0])
    assert not np.array_equal(first, call(1)[0])


def test_running_statistics_come_back():
    bridge, module = NNXBridge(normalised()), normalised()
    module.train()
    module(X)
    output, found = bridge.apply(
        bridge.variables, X, rngs={"dropout": KEY}, mutable=["batch_stats"]
    )
    assert output.shape == (len(X), CLASSES)
    assert set(found) == {"batch_stats"}
    np.testing.assert_array_equal(found["batch_stats"]["norm"]["mean"], module.norm.mean[...])
    np.testing.assert_array_equal(found["batch_stats"]["norm"]["var"], module.norm.var[...])
    _, kept = bridge.evaluating().apply(bridge.variables, X, mutable=["batch_stats"])
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, kept["batch_stats"],
                                     bridge.variables["batch_stats"]))  # fmt: skip


def test_variables_of_any_type_are_collections():
    class Calls(nnx.Variable):
        pass

    class Counting(nnx.Module):
        def __init__(self):
            self.calls = Calls(jnp.int32(0))
            self.weight = nnx.Param(jnp.float32(2.0))
            self.offset = jnp.float32(1.0)  # an array that is no variable
            self.nothing = nnx.Param(None)

        def __call__(self, x, **named):
            self.calls[...] = self.calls[...] + 1
            self.seen = nnx.Intermediate(x)
            return self.weight[...] * x + self.offset, named

        def twice(self, x):
            return 2 * self(x)[0]

    module = Counting()
    module(jnp.float32(3.0))  # leaves an intermediate behind
    bridge = NNXBridge(module)
    assert set(bridge.variables) == {"params", "Calls"}
    assert set(flatten(bridge.variables["params"])) == {"weight"}
    (output, named), found = bridge.apply(
        bridge.variables, jnp.float32(3.0), training=True, mutable=["Calls"]
    )
    assert (output, named, found) == (7, {"training": True}, {"Calls": {"calls": 2}})
    for method in ("twice", Counting.twice):
        assert bridge.apply(
            bridge.variables, jnp.float32(3.0), method=method, mutable=True
        )[0] == 14  # fmt: skip


def test_a_trained_module_has_the_modes_of_the_given_one():
    given = normalised()
    given.eval()
    bridge = NNXBridge(given)
    variables = jax.tree.map(lambda x: x + 1, bridge.variables)
    made = bridge.module(variables)
    assert type(made) is type(given)
    assert made is not given
    assert made.dropout.deterministic and made.norm.use_running_average
    np.testing.assert_array_equal(made(X), bridge.evaluating().apply(variables, X))


def test_what_would_be_lost_is_refused():
    bridge = NNXBridge(normalised())
    for mutable in (False, ["cache"], []):
        with pytest.raises(
            ValueError, match=r"changes norm/var: say mutable=\['batch_stats'\], and return what"
        ):
            bridge.apply(bridge.variables, X, rngs={"dropout": KEY}, mutable=mutable)
    with pytest.raises(ValueError, match=r"variables of batch_stats are missing; give \{'params'"):
        bridge.apply({"params": bridge.variables["params"]}, X)
