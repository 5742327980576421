"""Ids out of range in batches on the devices: counted inside the step, never trained on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.backbone import Decoder
from efficientids_flax.config import BackboneConfig
from efficientids_flax.core.batch import check_values, wrong_counts
from efficientids_flax.core.models import SimpleEfficientIDSModel
from efficientids_flax.sharding import make_mesh
from efficientids_flax.train import Trainer
from efficientids_flax.train.step import WrongValues
from tests.efficientids_flax.train.networks import numbers_of, same, trainer

ITEMS, B, T = 5, 2, 4
MODEL = SimpleEfficientIDSModel(
    num_items=ITEMS, full_softmax=True, item_embedding_dim=4, model_dims=4, num_layers=1,
    num_heads=1,
)  # fmt: skip
WORDS = BackboneConfig(
    vocab_size=ITEMS, num_layers=1, model_dims=4, hidden_dims=4, num_heads=1, num_kv_heads=1,
    head_dim=4, position_embedding="learned", max_positions=8,
)  # fmt: skip
GOOD: dict[str, Any] = {
    "ids": np.arange(B * T, dtype=np.int32).reshape(B, T) % ITEMS,
    "labels": np.arange(B * T, dtype=np.int32).reshape(B, T)[::-1] % ITEMS,
    "weights": np.ones((B, T), np.float32),
    "paddings": np.zeros((B, T), np.float32),
}


def changed(name: str, value: Any, **others: Any) -> dict[str, Any]:
    field = GOOD[name].copy() if name in GOOD else np.zeros((B, T), np.int32)
    field[1, 2] = value
    return {**GOOD, **others, name: field}


BAD = [
    ("ids", changed("ids", ITEMS)),
    ("ids", changed("ids", -1)),
    ("labels", changed("labels", ITEMS)),
    ("labels", changed("labels", -7)),
    ("weights", changed("weights", -1.0)),
    ("weights", changed("weights", np.nan)),
    ("paddings", changed("paddings", 0.5)),
    ("segment_ids", changed("segment_ids", -1)),
    ("segment_pos", changed("segment_pos", 8)),
]


SGD = optax.sgd(0.1)


def begun(made: Trainer) -> Any:
    return made.create_train_state(jax.random.key(0), GOOD, params=numbers_of(made.model))


def on_device(batch: Any) -> Any:
    return jax.tree.map(jnp.asarray, batch)


@pytest.mark.parametrize(("field", "batch"), BAD)
def test_what_the_host_refuses_is_counted_on_the_device(field: str, batch: Any):
    with pytest.raises(ValueError, match=rf"{field}: found"):
        check_values(WORDS, batch)
    counts = jax.jit(lambda batch: wrong_counts(WORDS, batch))(on_device(batch))
    assert {name: int(n) for name, n in counts.items() if n} == {field: 1}


def test_what_does_not_count_is_not_counted():
    padded = changed("ids", 99, paddings=changed("paddings", 1.0)["paddings"])
    unweighted = changed("labels", 99, weights=changed("weights", 0.0)["weights"])
    for batch in (GOOD, padded, unweighted):
        check_values(WORDS, batch)
        assert not any(wrong_counts(WORDS, on_device(batch)).values())


@pytest.mark.parametrize("how", ["stop", "skip", "parts", "mesh"])
@pytest.mark.parametrize("model", [MODEL, Decoder(WORDS)], ids=["items", "words"])
def test_the_run_ends_and_names_them(model: Any, how: str):
    options: dict[str, Any] = {"loss_fn": None, "log_every": 100, "progress": "none"}
    if how == "skip":
        options["on_nonfinite"] = "skip"
    if how == "parts":
        options["gradient_accumulation_steps"] = 2
    if how == "mesh":
        options["mesh"] = make_mesh()
    bad = changed("labels", ITEMS)
    batches = [on_device(GOOD)] * 4 + [on_device(bad)] + [on_device(GOOD)] * 20
    made = trainer(network=model, optimizer=SGD, **options)
    state = begun(made)
    with pytest.raises(WrongValues, match=r"(?s)step 5: .*labels: found 5 at \[1, 2\].*\[0, 5\)"):
        made.train(state, batches, num_steps=20)


@pytest.mark.parametrize("how", ["stop", "skip"])
def test_what_was_before_the_bad_batch_is_saved(tmp_path: Any, how: Any):
    def run(batches: Any, steps: int, directory: Any = None) -> Any:
        made = trainer(
            directory, network=MODEL, optimizer=SGD, loss_fn=None, save_every=100, log_every=100,
            on_nonfinite=how,
        )  # fmt: skip
        return made.train(begun(made), batches, num_steps=steps)

    good, bad = on_device(GOOD), on_device(changed("ids", ITEMS))
    with pytest.raises(WrongValues, match="step 3") as end:
        run([good, good, bad, good, good], 5, tmp_path)
    assert end.value.__notes__ == ["step 2, before it, is saved; the same command goes on"]
    assert [path.name for path in tmp_path.iterdir() if path.name.isdigit()] == ["2"]
    assert same(run([good], 4, tmp_path), run([good], 4))


def test_an_evaluation_names_the_field():
    made = trainer(network=MODEL, loss_fn=None)
    state = begun(made)
    bad = [on_device(GOOD), on_device(changed("labels", ITEMS)), on_device(GOOD)]
    with pytest.raises(ValueError, match=r"evaluation: values .* out of range: 1 in labels"):
        made.evaluate(state, bad)
    assert made.evaluate(state, [on_device(GOOD)]) == made.evaluate(state, [GOOD])
