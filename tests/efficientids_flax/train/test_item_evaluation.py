"""Evaluation of a recommender by the Trainer: what is served, whatever the training's precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax import load_model, recommend
from efficientids_flax.config import BackboneConfig, EfficientIDSConfig
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.models import EfficientIDSModel, SimpleEfficientIDSModel
from efficientids_flax.data.files import next_items
from efficientids_flax.train import Trainer
from efficientids_flax.train.batches import ShuffledBatches
from tests.efficientids_flax.train.networks import numbers_of

ITEMS, USERS = 40, 30
MODEL = SimpleEfficientIDSModel(
    num_items=ITEMS, item_embedding_dim=8, model_dims=8, num_heads=1, num_layers=1,
    clustering_info=ClusteringInfo.from_assignments(np.repeat(np.arange(4), [1, 3, 10, 26])),
)  # fmt: skip
PAIRS = np.random.default_rng(0).integers(0, ITEMS, (USERS, 2))
ARRAYS = next_items(PAIRS)


def trainer(**options):
    return Trainer(MODEL, optax.adamw(1e-2), progress="none", **options)


@pytest.fixture(scope="module")
def begun():
    made = trainer()
    return made, made.create_train_state(jax.random.key(0), ARRAYS, params=numbers_of(MODEL))


def hits(state, **options):
    """k -> share of the labels among the first k of the ten best."""
    best = recommend(MODEL, state.params, PAIRS[:, :1], 10, **options).ids
    return {k: np.mean((best == PAIRS[:, 1:])[:, :k].any(axis=1)) for k in (1, 5, 10)}


def test_recall_is_the_share_of_labels_that_recommend_finds(begun):
    made, state = begun
    found = made.evaluate(state, ShuffledBatches(ARRAYS, 7))
    assert found["eval_num_predictions"] == USERS
    assert found["eval_accuracy"] == found["eval_recall_at_1"]
    original = made.evaluate(state, [ARRAYS], scoring="original")
    for measured, served in ((found, hits(state)), (original, hits(state, scoring="original"))):
        for k, share in served.items():
            assert measured[f"eval_recall_at_{k}"] == pytest.approx(share)
    assert original["eval_mrr_at_10"] != pytest.approx(found["eval_mrr_at_10"], rel=1e-3)
    assert original["eval_loss"] == pytest.approx(found["eval_loss"], rel=1e-5)


@pytest.mark.parametrize("begin", [None, 0])
def test_a_model_with_words_is_asked_as_it_was_trained(tmp_path, capsys, begin):
    """On items alone; or with the original's <sos>, placeholder and <eos> around them."""
    words = BackboneConfig(
        vocab_size=9, num_layers=1, model_dims=4, hidden_dims=4, num_heads=1, num_kv_heads=1,
        head_dim=4,
    )  # fmt: skip
    model = EfficientIDSModel(EfficientIDSConfig(
        backbone=words, num_items=ITEMS, item_embedding_dim=4, full_softmax=True,
        placeholder_item_id=3,
    ))  # fmt: skip
    ids = np.random.default_rng(0).integers(0, ITEMS, (USERS, 6))
    batch = {name: np.zeros((USERS, 6), int) for name in ("ids", "labels", "weights")}
    last = 5 if begin is None else 3
    batch["weights"][:, last] = 1
    marks = np.ones((USERS, 6), int)
    if begin is not None:
        ids[:, [0, 4, 5]], marks[:, [0, 5]] = [begin, 3, 1], 0
        batch["inputs_indicator"] = np.broadcast_to(np.arange(6) < 4, marks.shape).astype(int)
    batch |= {"ids": ids, "input_item_weights": marks, "label_item_weights": batch["weights"]}
    batch["labels"][:, last] = labels = np.random.default_rng(1).integers(0, ITEMS, USERS)
    made = Trainer(model, optax.adamw(1e-2), progress="lines")
    for sample in ({**batch, "input_item_weights": np.ones_like(marks)}, batch):  # the last counts
        capsys.readouterr()
        state = made.create_train_state(jax.random.key(0), sample, params=numbers_of(model))
    alone = "model: is trained on histories without words" in capsys.readouterr().err
    assert alone == (begin is None)
    made.export(state, tmp_path / "model")
    exported, params, _ = load_model(tmp_path / "model")
    histories = ids if begin is None else ids[:, 1:4]
    best = recommend(exported, params, histories, 5).ids
    share = np.mean((best == labels[:, None]).any(axis=1))
    assert share > 0
    assert made.evaluate(state, [batch])["eval_recall_at_5"] == pytest.approx(share)


def test_options_of_the_run_say_how_it_ranks(begun):
    made, state = begun
    other = trainer(scoring="original", exclude_seen=True)
    wanted = made.evaluate(state, [ARRAYS], scoring="original", exclude_seen=True)
    assert other.evaluate(state, [ARRAYS]) == pytest.approx(wanted, rel=1e-6)
    seen = made.evaluate(state, [ARRAYS], exclude_seen=True)
    assert seen["eval_mrr_at_10"] >= made.evaluate(state, [ARRAYS])["eval_mrr_at_10"]
    with pytest.raises(ValueError, match="scoring: expected"):
        trainer(scoring="best")
    with pytest.raises(ValueError, match="exclude_seen: the evaluation ranks no items"):
        Trainer(MODEL, optax.sgd(1.0), loss_fn=lambda *given: None, exclude_seen=True)


def test_mixed_precision_is_evaluated_as_it_is_served(begun):
    made, state = begun
    half = trainer(use_mixed_precision=True)
    assert half.evaluate(state, [ARRAYS]) == pytest.approx(made.evaluate(state, [ARRAYS]), rel=1e-6)


def test_parameters_that_are_no_numbers_are_worst_and_said(begun):
    made, state = begun
    broken = state.replace(trained=jax.tree.map(lambda x: x * jnp.nan, state.trained))
    with pytest.warns(UserWarning, match=r"a score or a weight is NaN; .*eval_loss are NaN"):
        found = made.evaluate(broken, [ARRAYS])
    assert np.isnan(found["eval_loss"])
    assert found["eval_recall_at_10"] == found["eval_accuracy"] == 0.0


def test_no_label_is_not_measured(begun):
    made, state = begun
    none = ARRAYS | {"weights": np.zeros_like(ARRAYS["weights"])}
    with pytest.warns(UserWarning, match=r"no label has a weight; eval_accuracy, .*recall"):
        found = made.evaluate(state, [none])
    assert found.pop("eval_num_predictions") == 0.0
    assert np.isnan(list(found.values())).all()
    assert made.evaluate(state, [none, ARRAYS]) == pytest.approx(made.evaluate(state, [ARRAYS]))


def test_labels_that_weigh_little_are_measured_alike(begun):
    made, state = begun
    light = {**ARRAYS, "weights": ARRAYS["weights"] * np.float32(1e-3)}  # in all less than 1
    found, wanted = made.evaluate(state, [light]), made.evaluate(state, [ARRAYS])
    assert found.pop("eval_num_predictions") == pytest.approx(USERS * 1e-3)
    del wanted["eval_num_predictions"]
    assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_wrong_values_of_a_field_that_few_batches_have_are_told(begun, first):
    made, state = begun
    plain = {name: jnp.asarray(value) for name, value in ARRAYS.items()}
    wrong = {**plain, "exclude": jnp.full((USERS, 1), ITEMS)}
    with pytest.raises(ValueError, match=f"out of range: {USERS} in exclude"):
        made.evaluate(state, [wrong, plain] if first else [plain, wrong])
