"""What the Trainer refuses before anything is compiled."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig
from efficientids_flax.core.clustering.tables import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel, SimpleEfficientIDSModel
from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.state.carried import TrainState
from efficientids_flax.train.step.returned import returned
from tests.efficientids_flax.train.networks import DRAWN, Network, batches, begin, trainer

IDS = {"ids": np.array([[1, 2, 3]]), "labels": np.array([[2, 3, 4]]), "weights": np.ones((1, 3))}

WORDS = BackboneConfig(
    vocab_size=5, num_layers=1, model_dims=4, hidden_dims=4, num_heads=1, num_kv_heads=1, head_dim=4
)


def of_ids(model, **options):
    return trainer(network=model, loss_fn=None, **options)


def of_items(**options):
    model = SimpleEfficientIDSModel(
        5, full_softmax=True, item_embedding_dim=4, model_dims=4, num_layers=1, num_heads=1
    )
    return of_ids(model, **options)


def with_id(name, value):
    changed = IDS[name].copy()
    changed[0, 1] = value
    return {**IDS, name: changed}


def test_wrong_options_are_told_with_the_nearest(monkeypatch):
    with pytest.raises(ValueError, match=r"log_evry: unknown key; did you mean log_every\?"):
        trainer(log_evry=5)
    with pytest.raises(ValueError, match=r"save_every: expected at least 0, found -1"):
        trainer(save_every=-1)
    with pytest.raises(ValueError, match="loss_fn: missing; Network has no loss of its own"):
        trainer(loss_fn=None)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ImportError, match="wandb is not installed: pip install wandb"):
        trainer(wandb_project="mine")


@pytest.mark.parametrize("steps", [-1, 2.5, 4.0, "4", True, None])
def test_what_is_no_number_of_steps_is_refused(steps):
    made = trainer()
    with pytest.raises(ValueError, match=r"num_steps: expected a whole number .* found"):
        made.train(begin(made), batches(), num_steps=steps)


def test_a_state_that_was_trained_on_is_refused_by_its_name():
    made = trainer(keep_best="eval_loss", eval_every=1)
    state = begin(made)
    made.train(state, batches(), batches(), num_steps=1)
    for use in (
        lambda: made.train(state, batches(), batches(), num_steps=2),
        lambda: made.evaluate(state, batches()),
        lambda: made.best(state),
        lambda: made.module(state),
    ):
        with pytest.raises(ValueError, match="state: was given to `train`, which trained on"):
            use()


BAD = {
    "other words": {"x": np.ones((8, 6), np.float32), "z": np.ones(8, np.int32)},
    "bytes": {"x": np.ones((8, 6), np.uint8), "y": np.ones(8, np.int32)},
    "nothing": None,
}


@pytest.mark.parametrize("gives", BAD)
def test_what_was_reached_before_a_bad_batch_is_saved(tmp_path, gives):
    """One that would have been trained on in another way, or that could not be read."""

    def source():
        for index, batch in enumerate(batches()):
            if index == 3 and gives == "nothing":
                raise OSError("the data is gone")
            yield BAD[gives] if index == 3 else batch

    made = trainer(tmp_path, save_every=100, tensorboard=False)
    with pytest.raises((ValueError, OSError), match=r"missing|sample batch|gone") as error:
        made.train(begin(made), source, num_steps=10)
    assert "step 3, before it, is saved" in error.value.__notes__[0]
    assert int(made.last_state.step) == 3
    assert (tmp_path / "3").is_dir()


def test_a_loss_function_that_returns_something_else_is_told():
    def told(found):
        with pytest.raises(ValueError) as error:
            returned(found)
        return str(error.value)

    one = jnp.float32(1)
    assert "expected (loss, metrics, model_state), found 2 values" in told((one, {}))
    assert "one number" in told((jnp.ones(3), {}, {}))
    assert "made of the parameters, found 1.0" in told((1.0, {}, {}))
    assert "metrics: step: names of the trainer's own" in told((one, {"step": 1}, {}))
    assert returned((one, {"accuracy": 0.5}, {}))[1]["accuracy"] == 0.5


def test_averages_that_are_not_made_are_missed_before_the_run():
    with pytest.raises(ValueError, match="made without ema_decay; give it one, or leave"):
        begin(trainer(evaluate_average=True))


def test_an_optimizer_that_asks_for_more_than_a_gradient_is_told():
    made = trainer(optimizer=optax.lbfgs())
    with pytest.raises(ValueError, match=r"^optimizer: .*'value_fn', which a step does not have"):
        made.train(begin(made), batches(), num_steps=2)


def test_a_field_that_is_none_is_none():
    made = of_items()
    batch = {**IDS, "segment_ids": None, "of": None}
    made.train(made.create_train_state(jax.random.key(0), batch), [batch], num_steps=1)


def test_a_metric_that_no_evaluation_has_is_named_before_anything_is_compiled():
    made = trainer(keep_best="eval_accurary", best_mode="max")
    with pytest.raises(ValueError, match="no 'eval_accurary'; it has eval_accuracy, eval_loss"):
        made.train(begin(made), batches(), batches(epochs=1), num_steps=2)
    assert made._step is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: {"x": b["x"]}, "y: missing"),
        (lambda b: {"x": b["x"], "yy": b["y"]}, r"yy: not in the sample batch; did you mean y\?"),
        (lambda b: b | {"x": b["x"][:, :5]}, r"x: found \[8, 5\], the sample batch has \[8, 6\]"),
        (lambda b: b | {"y": b["y"].astype(np.float32)}, "y: found float32, the sample batch has"),
        (lambda b: b | {"x": b["x"][:4]}, "as many rows in each field, found"),
        (lambda b: b | {"x": b["x"].astype(str)}, "x: found <U32, expected numbers"),
        (lambda b: (b["x"], b["y"]), "expected a dict of arrays, found a tuple"),
    ],
)
def test_batches_unlike_the_sample_are_named_before_anything_is_compiled(change, message):
    made = trainer()
    state = begin(made)
    with pytest.raises(ValueError, match=message):
        made.train(state, [change(next(iter(batches())))], num_steps=2)
    assert made._step is None


def test_ids_out_of_range_are_told_in_any_batch():
    """Jit would clip them."""
    made = of_items(progress="none")
    state = made.create_train_state(jax.random.key(0), IDS)
    message = r"ids: found 5 at \[0, 1\], expected in \[0, 5\), an item"
    with pytest.raises(ValueError, match=message):
        made.train(state, [IDS, with_id("ids", 5)], num_steps=2)
    state = made.create_train_state(jax.random.key(0), IDS)
    with pytest.raises(ValueError, match=r"labels: found 2147483648 .*\[0, 5\), an item"):
        made.evaluate(state, [with_id("labels", 2**31)])


def test_words_out_of_range_are_told_of_a_language_model():
    for name in ("ids", "labels"):
        with pytest.raises(ValueError, match=rf"{name}: found 5 .*\[0, 5\), a word"):
            of_ids(Decoder(WORDS)).create_train_state(jax.random.key(0), with_id(name, 5))


def test_the_callers_loss_reads_batches_of_its_own():
    def loss(params, batch, model_state, rng, apply_fn):
        found = apply_fn({"params": params}, batch["clicked"], training=True)
        return found["loss"], {}, model_state

    made = trainer(network=of_items().given_model, loss_fn=loss, init_args=[IDS["ids"]])
    state = made.create_train_state(jax.random.key(0), {"clicked": IDS["ids"]})
    assert "item_embedding" in state.params


def test_rows_that_do_not_divide_are_named():
    made = trainer(gradient_accumulation_steps=3)
    with pytest.raises(ValueError, match="x: 8 rows do not divide by gradient_accumulation_steps"):
        begin(made)


def test_a_frozen_language_model_without_its_parameters_is_refused():
    tables = ClusteringInfo.from_assignments(np.arange(6) % 2)
    made = of_ids(
        EfficientIDSModel(
            model_name="some/model", backbone=WORDS, num_items=6, item_embedding_dim=4,
            clustering_info=tables, freeze_lm=True,
        )
    )  # fmt: skip
    items = {
        name: np.ones((1, 3), np.int32) for name in ("input_item_weights", "label_item_weights")
    }
    with pytest.raises(ValueError, match="without those of some/model a frozen language model"):
        made.create_train_state(jax.random.key(0), {**IDS, **items})


def test_all_parameters_frozen_is_refused():
    with pytest.raises(ValueError, match="nothing is left to train"):
        TrainState.create({"a": jnp.ones(2)}, optax.sgd(1), rng=jax.random.key(0), frozen=["a"])


@pytest.mark.parametrize("rng", [0, "key", None, jnp.zeros(3)])
def test_what_is_no_key_is_told(rng):
    with pytest.raises(ValueError, match="rng: expected a key, as jax"):
        trainer().create_train_state(rng, next(iter(batches())))


def test_keys_of_other_kinds_begin_a_run_too():
    made = trainer(network=Network(kernel_init=DRAWN))
    first, second = (jax.random.key(seed, impl="rbg") for seed in (0, 1))
    one, other = (
        made.create_train_state(rng, next(iter(batches()))).params["Dense_0"]["kernel"]
        for rng in (first, second)
    )
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("seed", [None, -1, 0.5, "3", True])
def test_a_seed_of_the_order_that_is_no_whole_number_is_told(seed):
    with pytest.raises(ValueError, match="seed: expected a whole number of at least 0, found"):
        ShuffledBatches({"x": np.zeros(4)}, 2, seed=seed)
