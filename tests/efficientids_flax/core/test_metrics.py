"""Ranking metrics against sorting, closed forms, and what the real system reports."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from efficientids_flax.core import metrics
from efficientids_flax.core.metrics import NEVER, RankingSums
from parity_tests.cases import OUTPUTS
from tests.efficientids_flax.core.lists import places_in

# Op by op each compiles a dozen programs for every shape.
correct_predictions = jax.jit(metrics.correct_predictions, static_argnames="num_words")
ranking_sums = jax.jit(metrics.ranking_sums, static_argnames=("num_words", "cutoffs"))
ranking_sums_of_ranks = jax.jit(metrics.ranking_sums_of_ranks, static_argnames="cutoffs")
ranks = jax.jit(metrics.ranks)
token_sums = jax.jit(metrics.token_sums)

# Few distinct values, so that ties are the rule.
SCORES = st.sampled_from([-math.inf, -2.0, -0.0, 0.0, 0.5, 1.0, math.inf])


@st.composite
def ranked(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.sampled_from([1, 5, 12]))
    scores = draw(arrays.arrays(np.float32, (4, count), elements=SCORES))
    return scores, draw(arrays.arrays(np.int32, 4, elements=st.integers(-3, count + 2)))


@given(ranked())
@settings(max_examples=50, deadline=None)
def test_a_rank_is_the_place_in_a_stable_sort(case: tuple[np.ndarray, np.ndarray]):
    scores, classes = case
    order = np.argsort(-scores, axis=-1, kind="stable")
    wanted = [
        list(row).index(label) if 0 <= label < len(row) else NEVER
        for row, label in zip(order, classes, strict=True)
    ]
    np.testing.assert_array_equal(ranks(scores, classes), wanted)


def test_a_score_that_is_nan_is_never_a_hit():
    scores = np.array([[1.0, math.nan, 0.0], [math.nan, 2.0, 0.0]])
    np.testing.assert_array_equal(ranks(scores, np.array([1, 1])), [NEVER, 0])


def test_one_label_by_hand():
    # Item 4 stands third of the items (0-based rank 2): below cutoff 5 and 10, not 1.
    scores = np.array([[[0.0, 9.0, 1.0, 8.0, 7.0, 2.0]]])
    found = ranking_sums(scores, np.array([[4]]), np.array([[1]])).compute()
    wanted = {
        "recall_at_1": 0.0, "recall_at_5": 1.0, "recall_at_10": 1.0,
        "mrr_at_1": 0.0, "mrr_at_5": 1 / 3, "mrr_at_10": 1 / 3,
        "ndcg_at_1": 0.0, "ndcg_at_5": 0.5, "ndcg_at_10": 0.5,  # 1 / log2(2 + 2)
    }  # fmt: skip
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-7), name


def test_labels_are_shifted_by_the_words():
    # Classes: 2 words, 3 items. The words score best: they push every item down by two.
    scores = np.array([[[9.0, 8.0, 1.0, 3.0, 2.0]]])
    labels, weights = np.array([[1]]), np.array([[1.0]])
    with_words = ranking_sums(scores, labels, weights, num_words=2, cutoffs=(2, 3)).compute()
    assert (float(with_words["recall_at_2"]), float(with_words["mrr_at_3"])) == (
        0.0,
        pytest.approx(1 / 3),
    )
    alone = ranking_sums(scores[..., 2:], labels, weights, cutoffs=(1,)).compute()
    assert float(alone["recall_at_1"]) == 1.0


@pytest.mark.parametrize("label", [-1, -2, -5, 3, 4, 1000])
def test_a_label_out_of_range_counts_and_is_never_found(label: int):
    # With two words in front, -1 and -2 would be the words' classes.
    scores = np.array([[[9.0, 8.0, 1.0, 3.0, 2.0], [9.0, 8.0, 1.0, 3.0, 2.0]]])
    labels, weights = np.array([[label, 1]]), np.ones((1, 2))
    found = ranking_sums(scores, labels, weights, num_words=2, cutoffs=(100,)).compute()
    assert float(found["recall_at_100"]) == 0.5  # a cutoff beyond the catalogue finds no more


def test_the_divisor_is_the_weight_of_item_labels_and_at_least_one():
    scores = np.array([[[2.0, 1.0], [2.0, 1.0], [2.0, 1.0]]])
    labels = np.array([[0, 1, 0]])
    for weights, wanted in (([1, 1, 0], 0.5), ([0, 0, 0], 0.0), ([0.5, 0, 0], 0.5)):
        found = ranking_sums(scores, labels, np.array([weights]), cutoffs=(1,))
        assert float(found.compute()["recall_at_1"]) == wanted
        assert float(found.weight) == sum(weights)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 3]))
@settings(max_examples=20, deadline=None)
def test_batches_add_up_to_one(seed: int, batches: int):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (batches * 2, 3, 20)).astype(np.float32)
    labels = rng.integers(0, 20, (batches * 2, 3))
    weights = rng.integers(0, 2, (batches * 2, 3))
    whole = ranking_sums(scores, labels, weights)
    total = RankingSums.zero()
    for start in range(0, batches * 2, 2):
        part = slice(start, start + 2)
        total = total + ranking_sums(scores[part], labels[part], weights[part])
    np.testing.assert_array_equal(total.recall, whole.recall)  # counts: exact
    np.testing.assert_allclose(total.ndcg, whole.ndcg, rtol=1e-6)  # order of a float32 sum
    np.testing.assert_allclose(total.mrr, whole.mrr, rtol=1e-6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 12, 30]))
@settings(max_examples=20, deadline=None)
def test_a_list_of_the_best_gives_the_same(seed: int, count: int):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (3, 4, count)).astype(np.float32)
    labels = jnp.asarray(rng.integers(-2, count + 2, (3, 4)))
    weights = rng.integers(0, 2, (3, 4))
    top = np.argsort(-scores, axis=-1, kind="stable")[..., :10]
    top = np.pad(top, ((0, 0), (0, 0), (0, 10 - top.shape[-1])), constant_values=-1)
    wanted = ranking_sums(scores, labels, weights)
    found = ranking_sums_of_ranks(places_in(top, labels), weights)
    assert jax.tree.all(jax.tree.map(np.array_equal, found, wanted))


def test_sums_stay_on_the_device_in_a_jitted_loop():
    scores = np.arange(24.0).reshape(4, 1, 2, 3)
    labels = np.full((4, 1, 2), 2)

    @jax.jit
    def evaluate(scores: jax.Array) -> dict[str, jax.Array]:
        def step(total: RankingSums, batch: tuple[jax.Array, jax.Array]):
            return total + ranking_sums(*batch, jnp.ones((1, 2)), cutoffs=(1,)), None

        return jax.lax.scan(step, RankingSums.zero((1,)), (scores, labels))[0].compute()

    assert float(evaluate(scores)["recall_at_1"]) == 1.0


def test_token_metrics_in_closed_form():
    xent = np.array([[1.0, 2.0, 4.0]])
    weights = np.array([[1, 1, 0]])
    one = token_sums(xent, weights, aux_loss=0.5, correct=np.array([[True, False, True]]))
    found = {name: float(value) for name, value in one.compute().items()}
    mean = pytest.approx(3 / (2 + 1e-6), rel=1e-7)
    assert found == {
        "avg_xent": mean, "log_pplx": mean, "num_predictions": 2.0, "aux_loss": 0.5,
        "total_loss": pytest.approx(2.0, rel=1e-6), "fraction_of_correct_next_step_preds": 0.5,
    }  # fmt: skip
    # A second batch with another weight: the auxiliary loss of a batch weighs as much as its loss
    # does in the total, and once in its own mean.
    two = token_sums(xent, np.array([[0, 0, 6]]), aux_loss=0.1, correct=np.array([[True] * 3]))
    both = {name: float(value) for name, value in (one + two).compute().items()}
    assert both["avg_xent"] == pytest.approx((3 + 24) / 8, rel=1e-6)
    assert both["aux_loss"] == pytest.approx(0.3)
    assert both["total_loss"] == pytest.approx((3 + 24) / 8 + (0.5 * 2 + 0.1 * 6) / 8, rel=1e-6)
    assert both["fraction_of_correct_next_step_preds"] == pytest.approx(7 / 8)


def test_no_weight_at_all_is_zero_and_finite():
    found = token_sums(np.ones((1, 2)), np.zeros((1, 2))).compute()
    assert {float(value) for value in found.values()} == {0.0}
    assert "fraction_of_correct_next_step_preds" not in found


def test_correct_predictions_tell_words_from_items():
    scores = np.array([[[0.0, 3.0, 1.0, 3.0], [0.0, 0.0, 0.0, 5.0]]])  # two words, two items
    found = correct_predictions(scores, np.array([[1, 1]]), np.array([[0, 1]]), num_words=2)
    np.testing.assert_array_equal(found, [[True, True]])  # a tie goes to the lower class
    swapped = correct_predictions(scores, np.array([[1, 1]]), np.array([[1, 0]]), num_words=2)
    np.testing.assert_array_equal(swapped, [[False, False]])


NAMES = ("b_everywhere", "d_correction_frozen_lm", "g_stacked_layers", "k_adam")


@pytest.mark.parametrize("name", NAMES)
def test_the_metrics_that_the_real_system_reports(name: str):
    with np.load(OUTPUTS / name / "arrays.npz") as file:
        recorded = {key: file[key] for key in file.files}
    best = recorded["passes/eval/outputs/top10_indices"]
    words = 128
    labels, is_item, weights = (
        recorded[f"inputs/{field}"] for field in ("labels", "label_item_weights", "weights")
    )
    reported = {
        key.split("/")[3]: float(value)
        for key, value in recorded.items()
        if key.startswith("passes/eval/metrics/") and key.endswith("/value")
    }
    found = ranking_sums_of_ranks(places_in(best - words, labels), is_item).compute()
    assert float(recorded["passes/eval/metrics/mrr_at_1/weight"]) == float(np.sum(is_item))
    classes = np.where(is_item > 0, labels + words, labels)
    correct = best[..., 0] == classes
    xent = recorded["outputs/per_example_xent"]  # neither of these smooths its labels
    found |= token_sums(xent, weights, correct=correct).compute()
    assert found.keys() == reported.keys()
    for metric, value in found.items():
        # A float32 sum of some tens of numbers, in another order.
        assert float(value) == pytest.approx(reported[metric], rel=3e-7), metric
    logits = recorded.get("activations/act/eval_logits")
    if logits is not None:
        ranked_by_score = ranking_sums(logits, labels, is_item, num_words=words)
        again = correct_predictions(logits, labels, is_item, num_words=words)
        np.testing.assert_array_equal(again, correct)
        for metric, value in ranked_by_score.compute().items():
            assert float(value) == pytest.approx(reported[metric], rel=3e-7), metric


SHAPES = np.zeros((2, 3, 5)), np.zeros((2, 3), np.int32), np.zeros((2, 3))


def test_what_does_not_fit_is_named():
    scores, labels, weights = SHAPES
    with pytest.raises(ValueError, match=r"labels: found \[3\], expected \[2, 3\]"):
        ranking_sums(scores, labels[0], weights)
    with pytest.raises(ValueError, match=r"weights: found \[2\], expected \[2, 3\]"):
        ranking_sums(scores, labels, weights[:, 0])
    with pytest.raises(ValueError, match=r"num_words: expected in \[0, 5\).*found 5"):
        ranking_sums(scores, labels, weights, num_words=5)
    with pytest.raises(ValueError, match=r"cutoffs: expected numbers above 0, found \(0, 5\)"):
        ranking_sums(scores, labels, weights, cutoffs=(0, 5))
    with pytest.raises(ValueError, match=r"cutoffs: \(1, 5, 10\) and \(2,\) do not add up"):
        _ = RankingSums.zero() + RankingSums.zero((2,))
    with pytest.raises(ValueError, match=r"correct: found \[2\], xent is \[2, 3\]"):
        token_sums(weights, weights, correct=np.zeros(2, bool))
    counted = token_sums(weights, weights, correct=weights > 0)
    with pytest.raises(ValueError, match="one of the batches counts correct predictions"):
        _ = counted + token_sums(weights, weights)
