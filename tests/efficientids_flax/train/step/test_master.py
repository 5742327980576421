"""Trained parameters in half precision move by small steps: a float32 copy is kept."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from efficientids_flax import load_model
from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig
from efficientids_flax.memory import estimate_memory
from efficientids_flax.train import Trainer
from efficientids_flax.train.optimizer import create_optimizer
from tests.efficientids_flax.train.networks import arrays, same

STEPS = 50
SGD = create_optimizer(1e-4, "sgd", momentum=0.0)
BATCH = {"x": np.ones(2, np.float32)}


class Numbers(nn.Module):
    """Two numbers of one dtype, one of which may be frozen."""

    dtype: Any = jnp.bfloat16

    @nn.compact
    def __call__(self, x: Any) -> Any:
        w = self.param("w", nn.initializers.ones, (), self.dtype)
        return (w + self.param("kept", nn.initializers.ones, (), self.dtype)) * x


def loss_fn(params: Any, batch: Any, model_state: Any, rng: Any, apply_fn: Any) -> Any:
    return -jnp.mean(apply_fn({"params": params}, batch["x"])), {}, model_state


def trainer(dtype: Any, directory: Any = None, **options: Any) -> Trainer:
    optimizer = options.pop("optimizer", SGD)
    options = {"progress": "none", "plot": False, "frozen_params": ["kept"], **options}
    return Trainer(Numbers(dtype), optimizer, directory, loss_fn=loss_fn, **options)


def run(made: Trainer, steps: int = STEPS) -> Any:
    state = made.create_train_state(jax.random.key(0), BATCH)
    return made.train(state, [BATCH], num_steps=steps)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    "optimizer",
    [
        SGD,
        create_optimizer(1e-4, "adam"),
        create_optimizer(1e-4, "sharded_adafactor", multiply_by_parameter_scale=False),
        optax.sgd(1e-4),
    ],
    ids=["sgd", "adam", "sharded_adafactor", "optax"],
)
@pytest.mark.parametrize("parts", [1, 2])
def test_the_parameter_is_that_of_a_float32_run_rounded(dtype: Any, optimizer: Any, parts: int):
    """The gradient is 1 wherever the parameter is, so that the runs do not part."""
    half = run(trainer(dtype, optimizer=optimizer, gradient_accumulation_steps=parts))
    whole = run(trainer(jnp.float32, optimizer=optimizer, gradient_accumulation_steps=parts))
    assert half.params["w"].dtype == dtype
    assert float(whole.params["w"]) == pytest.approx(1.005, abs=1e-3)
    np.testing.assert_allclose(half.master["w"], whole.params["w"], rtol=1e-6)
    assert half.params["w"] == half.master["w"].astype(dtype)
    assert whole.master == {}


def test_frozen_ones_have_no_copy():
    state = run(trainer(jnp.bfloat16))
    assert set(state.master) == {"w"}
    assert float(state.params["kept"]) == 1.0


def test_goes_on_to_the_bit(tmp_path: Any):
    optimizer = create_optimizer(1e-4, "adam", ema_decay=0.9)
    made = trainer(jnp.bfloat16, tmp_path, optimizer=optimizer)
    run(made, 20)
    again = trainer(jnp.bfloat16, tmp_path, optimizer=optimizer)
    whole = trainer(jnp.bfloat16, optimizer=optimizer)
    found = run(again)
    assert same(found, run(whole))
    assert again.evaluated_params(found)["w"].dtype == jnp.bfloat16  # the average, in float32


def test_a_checkpoint_without_copies_begins_with_its_parameters(tmp_path: Any):
    """Of a release that kept none, or of a run that was told to keep none."""
    old = trainer(jnp.bfloat16, tmp_path, optimizer=optax.adam(1e-2), master_weights=False)
    before = run(old, 10)
    assert before.opt_state[0].mu["w"].dtype == jnp.bfloat16
    new = trainer(jnp.bfloat16, tmp_path, optimizer=optax.adam(1e-2))
    restored = new.restore(new.create_train_state(jax.random.key(1), BATCH))
    assert restored.master["w"].dtype == jnp.float32
    assert float(restored.master["w"]) == float(before.params["w"]) != 1.0
    assert float(restored.opt_state[0].mu["w"]) == float(before.opt_state[0].mu["w"])
    assert int(run(new, 12).step) == 12


def test_the_reader_is_told(capsys: Any):
    run(trainer(jnp.bfloat16, progress="lines"), 1)
    assert "1 of the trained parameters are bfloat16: a float32 master" in capsys.readouterr().err
    state = run(trainer(jnp.float16, progress="lines", master_weights=False))
    assert "1 of the trained parameters are float16: updates that" in capsys.readouterr().err
    assert float(state.params["w"]) == 1.0
    run(trainer(jnp.float32, progress="lines"), 1)
    assert "trained parameters are" not in capsys.readouterr().err


def test_the_model_is_exported_in_its_own_dtype(tmp_path: Any):
    config = BackboneConfig(
        vocab_size=5, num_layers=1, model_dims=4, hidden_dims=8, num_heads=1, num_kv_heads=1,
        head_dim=4, param_dtype="bfloat16",
    )  # fmt: skip
    ids = np.arange(4, dtype=np.int32)[None]
    batch = {"ids": ids, "labels": ids, "weights": np.ones(ids.shape, np.float32)}
    made = Trainer(Decoder(config), create_optimizer(1e-4), progress="none")
    state = made.create_train_state(jax.random.key(0), batch)
    state = made.train(state, [batch], num_steps=2)
    made.export(state, tmp_path / "out")
    stored = jax.tree.leaves(load_model(tmp_path / "out").params)
    assert {str(leaf.dtype) for leaf in stored} == {"bfloat16"}
    assert [leaf.tobytes() for leaf in arrays(stored)] == [
        leaf.tobytes() for leaf in arrays(state.params)
    ]
    estimate = estimate_memory(config, 1, 4, mode="training", optimizer=made.optimizer)
    assert estimate.master == sum(leaf.nbytes for leaf in jax.tree.leaves(state.master))
    assert estimate.optimizer_state == sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))


@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_another_precision_goes_on_from_the_float32_numbers(dtypes: Any, tmp_path: Any):
    """The master copy becomes the parameter, and the other way round; nothing is rounded."""
    before, after = map(jnp.dtype, dtypes)
    first = run(trainer(before, tmp_path, frozen_params=()), 3)
    precise = jax.tree.map(np.asarray, first.precise)
    with pytest.raises(ValueError, match=r"model: dtype was .*--allow-change model"):
        run(trainer(after, tmp_path, frozen_params=()), 4)
    made = trainer(after, tmp_path, frozen_params=(), allow_changes=("model",))
    found = made.restore(made.create_train_state(jax.random.key(0), BATCH))
    assert {leaf.dtype for leaf in jax.tree.leaves(found.trained)} == {after}
    assert 1 < precise["w"] < 1.001
    assert same(found.precise, precise)
    assert int(run(made, 4).step) == 4


def test_a_run_goes_on_without_its_master_copies_if_that_is_allowed(tmp_path: Any):
    run(trainer(jnp.bfloat16, tmp_path), 3)
    with pytest.raises(ValueError, match=r"--allow-change optimizer(.|\n)*master/w"):
        run(trainer(jnp.bfloat16, tmp_path, master_weights=False), 4)
    allowed = trainer(
        jnp.bfloat16, tmp_path, master_weights=False, allow_changes=("optimizer",), progress="lines"
    )
    found = run(allowed, 4)
    assert (int(found.step), found.master) == (4, {})
