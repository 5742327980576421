"""NNX modules under the Trainer: they begin as they are, learn, go on to the bit, come back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from efficientids_flax.sharding import make_mesh
from efficientids_flax.train import PipelineConfig, Trainer, train, train_epochs
from efficientids_flax.train.optimizer.create import create_optimizer
from efficientids_flax.train.step.nonfinite import NonFiniteError
from efficientids_flax.tree import flatten
from tests.efficientids_flax.train.networks import arrays, batches, begin, data, loss_fn, same
from tests.efficientids_flax.train.nnx_networks import (
    SimpleClassifier,
    classifier,
    normalised,
    trainer,
    values,
)

MAKERS = [classifier, normalised]
called = nnx.jit(lambda module, x: module(x))  # op by op each compiles
STEPS = 12


def plain_loss(params, batch, model_state, rng, apply_fn):
    """Without keys, switches and collections: for a module with none of them but dropout."""
    logits = apply_fn({"params": params, **model_state}, batch["x"])
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
    return entropy.mean(), {}, model_state


@pytest.fixture(scope="module", params=MAKERS)
def uninterrupted(request):
    """(the maker of the module, its trainer, the state after some steps)."""
    made = trainer(request.param())
    return request.param, made, made.train(begin(made), batches(), num_steps=STEPS)


@pytest.mark.parametrize("make", MAKERS)
def test_begins_with_the_values_of_the_module_whatever_the_seed(make):
    module = make(seed=3)
    state = begin(trainer(module), seed=1)
    want = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    assert [a.tobytes() for a in arrays(state.params)] == [a.tobytes() for a in arrays(want)]
    assert set(state.model_state) == ({"batch_stats"} if make is normalised else set())
    kernel = np.full((8, 3), 0.5, np.float32)
    made = trainer(normalised())
    state = made.create_train_state(
        jax.random.key(0), next(iter(batches())), params={"last": {"kernel": kernel}}
    )
    assert np.array_equal(state.params["last"]["kernel"], kernel)
    assert same(state.params["first"], begin(made).params["first"])


@pytest.mark.parametrize("make", MAKERS)
def test_learns_and_gives_the_module_back(make):
    module = make()
    before = [np.array(leaf) for leaf in values(module)]
    made = trainer(module, log_every=50)
    state = made.train(begin(made), batches(), num_steps=150)
    found = made.evaluate(state, batches(epochs=1))
    assert found["eval_accuracy"] > 0.9
    assert made.history[-1]["loss"] < made.history[0]["loss"] / 2
    # The given one is as it was, and of use: nothing of it was donated.
    assert all(np.array_equal(a, b) for a, b in zip(values(module), before, strict=True))
    module(data()["x"])
    trained = made.module(state)
    assert type(trained) is type(module)
    trained.eval()
    accuracy = np.mean(np.argmax(called(trained, data()["x"]), axis=-1) == data()["y"])
    assert accuracy == pytest.approx(found["eval_accuracy"], abs=1e-6)


@pytest.mark.parametrize("make", MAKERS)
def test_dropout_is_on_in_training_alone(make):
    made = trainer(make(), optimizer=optax.sgd(0.0))
    state = begin(made)
    first = made.evaluate(state, batches(epochs=1, shuffle=False))
    assert first == made.evaluate(state, batches(epochs=1, shuffle=False))
    module = make()
    module.eval()
    logits = np.asarray(called(module, data()["x"]), np.float64)
    entropy = np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(logits)), data()["y"]]
    assert first["eval_loss"] == pytest.approx(entropy.mean(), rel=1e-5)
    same_rows = [next(iter(batches()))] * 6
    made.train(state, same_rows, num_steps=6)
    losses = [row["loss"] for row in made.history]
    assert len(set(losses)) == 6  # the parameters stay, the masks do not


def test_dropout_needs_no_key_of_the_loss_function():
    """As the seed's module is called: each step has masks of its own all the same."""
    made = trainer(classifier(), optimizer=optax.sgd(0.0), loss_fn=plain_loss)
    made.train(begin(made), [next(iter(batches()))] * 6, num_steps=6)
    assert len({row["loss"] for row in made.history}) == 6
    again = trainer(classifier(), optimizer=optax.sgd(0.0), loss_fn=plain_loss)
    again.train(begin(again), [next(iter(batches()))] * 6, num_steps=6)
    assert [row["loss"] for row in again.history] == [row["loss"] for row in made.history]


def test_running_statistics_move_in_training_and_serve_in_evaluation():
    made = trainer(normalised(), optimizer=optax.sgd(0.0))
    state = begin(made)
    before = arrays(state.model_state)
    rows = [batch for batch, _ in zip(batches(), range(5), strict=False)]
    state = made.train(state, rows, num_steps=5)
    assert not any(
        np.array_equal(new, old) for new, old in zip(arrays(state.model_state), before, strict=True)
    )
    module = normalised()
    module.train()
    for batch in rows:
        called(module, batch["x"])
    stats = made.module(state).norm
    np.testing.assert_allclose(stats.mean[...], module.norm.mean[...], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats.var[...], module.norm.var[...], rtol=1e-5, atol=1e-6)
    kept = arrays(state.model_state)
    made.evaluate(state, batches(epochs=1))
    assert [a.tobytes() for a in arrays(state.model_state)] == [a.tobytes() for a in kept]


def test_a_killed_run_goes_on_to_the_bit(uninterrupted, tmp_path):
    class PowerCutError(BaseException):
        """Nobody catches it."""

    def cut():
        for index, batch in enumerate(batches()):
            if index == 8:
                raise PowerCutError
            yield batch

    make, _, want = uninterrupted
    made = trainer(make(), tmp_path, save_every=3)
    with pytest.raises(PowerCutError):
        made.train(begin(made), cut, num_steps=STEPS)
    # Another process would build the module anew, perhaps of another seed.
    again = trainer(make(seed=9), tmp_path, save_every=3)
    state = again.train(begin(again, seed=4), batches(), num_steps=STEPS)
    assert same(state, want)
    assert same(again.restore(begin(again)), want)
    trained = again.module(state)
    assert same(nnx.to_pure_dict(nnx.state(trained, nnx.Param)), want.params)


@pytest.mark.parametrize("optimizer", [optax.adamw(0.1, weight_decay=0.5), optax.sgd(0.1, 0.9)])
def test_frozen_parameters_stay_to_the_bit(optimizer):
    made = trainer(classifier(), optimizer=optimizer, frozen_params=["net/layers/0"])
    state = begin(made)
    assert set(flatten(state.frozen)) == {"net/layers/0/kernel", "net/layers/0/bias"}
    before, trained = arrays(state.frozen), arrays(state.trained)
    state = made.train(state, batches(), num_steps=5)
    assert [leaf.tobytes() for leaf in arrays(state.frozen)] == [b.tobytes() for b in before]
    assert not all(
        np.array_equal(new, old) for new, old in zip(arrays(state.trained), trained, strict=True)
    )
    with pytest.raises(ValueError, match="layers_0"):
        begin(trainer(classifier(), frozen_params=["layers_0"]))


@pytest.mark.parametrize("make", MAKERS)
def test_accumulation_precision_remat_and_averages_go_the_same_way(make):
    made = trainer(
        make(), gradient_accumulation_steps=2, use_mixed_precision=True, use_remat=True,
        optimizer=create_optimizer(1e-2, ema_decay=0.5), log_every=50,
    )  # fmt: skip
    state = made.train(begin(made), batches(), num_steps=100)
    assert all(leaf.dtype != jnp.bfloat16 for leaf in arrays(state))
    assert made.evaluate(state, batches(epochs=1))["eval_accuracy"] > 0.8
    averages = nnx.to_pure_dict(nnx.state(made.module(state), nnx.Param))
    assert same(averages, made.evaluated_params(state))
    assert not same(averages, state.params)


def test_a_mesh_of_one_device_gives_the_same_numbers():
    plain, meshed = trainer(normalised()), trainer(normalised(), mesh=make_mesh())
    one = plain.train(begin(plain), batches(), num_steps=4)
    assert same(one, meshed.train(begin(meshed), batches(), num_steps=4))


def test_nan_is_named():
    class Logarithm(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(jnp.ones(()))

        def __call__(self, x):
            return jnp.log(self.weight[...] * x)

    def loss(params, batch, model_state, rng, apply_fn):
        return jnp.mean(apply_fn({"params": params}, batch["x"])), {}, model_state

    made = trainer(Logarithm(), loss_fn=loss)
    with pytest.raises(NonFiniteError, match=r"activation \(output of the model\) is not finite"):
        made.train(begin(made), batches(), num_steps=2)


def test_in_epochs_with_validation_and_test():
    config = PipelineConfig(batch_size=8, num_epochs=4, learning_rate=1e-2, keep_best=False)
    result = train_epochs(
        config, normalised(), data(), data(20, 1), data(12, 2), loss_fn=loss_fn,
        progress="none", plot=False,
    )  # fmt: skip
    assert int(result.state.step) == 24
    assert [row["step"] for row in result.history if "eval_loss" in row] == [6, 12, 18, 24]
    result.module.eval()
    found = called(result.module, data(12, 2)["x"])
    accuracy = np.mean(np.argmax(found, axis=-1) == data(12, 2)["y"])
    assert accuracy == pytest.approx(result.test["test_accuracy"], abs=1e-6)


def test_in_one_call_by_a_configuration():
    ConfigDict = pytest.importorskip("ml_collections").ConfigDict  # noqa: N806
    config = ConfigDict(
        {
            "model": {"module": classifier()},
            "optimizer": {"learning_rate": 1e-2},
            "data": {"train_iter_fn": batches},
            "training": {"num_steps": 3, "progress": "none", "plot": False},
            "loss_fn": loss_fn,
        }
    )
    result = train(config)
    assert [row["step"] for row in result.history] == [1, 2, 3]
    assert isinstance(result.module, SimpleClassifier)


def test_a_linen_module_comes_back_bound():
    from tests.efficientids_flax.train import networks

    made = networks.trainer()
    state = begin(made)
    logits = networks.Network().apply(state.variables, data()["x"])
    np.testing.assert_array_equal(made.module(state)(data()["x"]), logits)


def test_what_cannot_work_is_told_at_once(tmp_path):
    with pytest.raises(ValueError, match="loss_fn: missing; SimpleClassifier has no loss of its"):
        Trainer(classifier(), optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"model: .* an nnx\.Module, found the class SimpleClass"):
        Trainer(SimpleClassifier, optax.sgd(0.1), loss_fn=loss_fn)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"init_args: leave them out; an nnx\.Module has"):
        trainer(classifier(), init_args=[data()["x"]])
    optimizer = nnx.Optimizer(classifier(), optax.sgd(0.1), wrt=nnx.Param)
    with pytest.raises(TypeError, match=r"found an nnx\.Optimizer; give the optax one"):
        trainer(classifier(), optimizer=optimizer)
    made = trainer(normalised(), loss_fn=plain_loss)
    with pytest.raises(ValueError, match=r"changes norm/var: say mutable=\['batch_stats'\]"):
        made.train(begin(made), batches(), num_steps=1)
    made = trainer(classifier())
    with pytest.raises(TypeError, match="a SimpleClassifier cannot be written"):
        made.export(begin(made), tmp_path / "exported")
