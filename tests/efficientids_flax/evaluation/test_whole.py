"""Whole evaluations: of a model, of a baseline, of lists; who is asked, what is left out."""

from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from efficientids_flax.core.measuring import evaluation_sums
from efficientids_flax.core.models import SimpleEfficientIDSModel
from efficientids_flax.data.files import next_items
from efficientids_flax.evaluation import (
    EvaluationOptions,
    evaluate,
    evaluate_batches,
    evaluate_lists,
)
from efficientids_flax.inference import Ranker
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.tree import unflatten

ITEMS, USERS = 30, 12
RNG = np.random.default_rng(0)
HISTORIES = [RNG.integers(0, ITEMS, RNG.integers(1, 7)).tolist() for _ in range(USERS)]
HELD_OUT = [RNG.integers(0, ITEMS, 1).tolist() for _ in range(USERS)]
PLAIN = EvaluationOptions(cutoffs=(1, 5, 10), resamples=50)


class Popular:
    """The same list for everybody, without what is left out; keeps how it was asked."""

    def __init__(self, order):
        self.order, self.asked = order, []

    def recommend(self, histories, k, *, exclude, allowed=None):
        self.asked.append((len(histories), [sorted(set(map(int, ids))) for ids in exclude]))
        rows = []
        for row, ids in enumerate(exclude):
            left = [x for x in self.order if x not in ids and (allowed is None or allowed[row, x])]
            rows.append(([*left, *[-1] * k])[:k])
        return SimpleNamespace(ids=np.array(rows))


@pytest.fixture(scope="module")
def ranker():
    model = SimpleEfficientIDSModel(
        num_items=ITEMS, item_embedding_dim=8, model_dims=8, num_heads=1, num_layers=1,
        full_softmax=True,
    )  # fmt: skip
    rng, shapes = np.random.default_rng(1), parameter_shapes(model.config)
    drawn = {path: rng.normal(0, 0.4, shapes[path]) for path in sorted(shapes)}
    params = unflatten({path: values.astype(np.float32) for path, values in drawn.items()})
    return Ranker(model, params)


def test_is_what_the_trainer_measures_and_recommend_serves(ranker):
    lengths = [len(history) for history in HISTORIES]
    sequences = np.full((USERS, 8), -1)
    for row, history in enumerate(HISTORIES):
        sequences[row, : len(history) + 1] = [*history, *HELD_OUT[row]]
    batch = next_items(sequences)
    batch["weights"] *= np.arange(7) == np.array(lengths)[:, None] - 1
    for seen in (True, False):
        options = EvaluationOptions(cutoffs=(1, 5, 10), resamples=50, exclude_seen=seen)
        found = evaluate(ranker, HISTORIES, HELD_OUT, options)
        again = evaluate_batches(ranker, [batch], options)
        assert found.metrics == again.metrics
        assert found.segments == again.segments
        sums = jax.jit(lambda params, seen=seen: evaluation_sums(
            ranker.model, params, batch, exclude_seen=seen
        ))(ranker.params)  # fmt: skip
        for name, value in sums["ranking"].compute().items():
            assert found.metrics[name].value == pytest.approx(float(value), rel=1e-6), name
    for k in (1, 5, 10):
        best = ranker.recommend(HISTORIES, k).ids
        hits = [set(own) & set(row) for own, row in zip(HELD_OUT, best.tolist(), strict=True)]
        assert found.metrics[f"hit_rate_at_{k}"].value == pytest.approx(
            np.mean([bool(x) for x in hits])
        )


def test_labels_of_a_row_are_asked_each_or_together(ranker):
    batch = next_items(np.array([[1, 2, 3, 4, -1], [5, 6, 7, 8, 9]]))
    batch["weights"][:, 0] = 0.0
    each = evaluate_batches(ranker, [batch], PLAIN)
    assert (each.whole.users, each.whole.questions, each.whole.held_out) == (2, 5, 5)
    alone = evaluate(
        ranker, [[1, 2], [1, 2, 3], [5, 6], [5, 6, 7], [5, 6, 7, 8]], [[3], [4], [7], [8], [9]],
        PLAIN, users=[0, 0, 1, 1, 1],
    )  # fmt: skip
    assert each.metrics == alone.metrics
    together = EvaluationOptions(cutoffs=(1, 5, 10), resamples=50, together=True)
    both = evaluate_batches(ranker, [batch], together)
    assert (both.whole.users, both.whole.questions, both.whole.held_out) == (2, 2, 5)
    assert both.metrics == evaluate(ranker, [[1, 2], [5, 6]], [[3, 4], [7, 8, 9]], PLAIN).metrics


def test_a_baseline_is_asked_the_same():
    popular = Popular(range(ITEMS))
    histories, held_out = [[0, 1, 1], [5], [2]], [[1, 3], [0], []]
    found = evaluate(popular, histories, held_out, PLAIN, num_items=ITEMS,
                     counts=np.arange(ITEMS)[::-1] - 26)  # fmt: skip
    # What is asked for stays, seen or not: 0 is left out for the first user, 1 is not.
    assert popular.asked == [(2, [[0], [5]])]
    assert found.metrics["recall_at_5"].value == 1.0
    assert found.metrics["recall_at_1"].value == pytest.approx((0.5 + 1.0) / 2)
    assert found.places == (2, *[0] * 9)
    assert found.catalogue["coverage_at_1"] == pytest.approx(2 / ITEMS)
    assert any("1 users have nothing held out" in note for note in found.notes)
    parts = {part.name: part for part in found.segments}
    # Trained on were 0, 1 and 2: 3 is cold.
    assert (parts["cold items"].users, parts["cold items"].held_out) == (1, 1)
    assert parts["warm items"].held_out == 2
    assert parts["cold items"].metrics["mrr_at_5"].value == pytest.approx(1 / 3)
    assert parts["warm items"].metrics["mrr_at_5"].value == 1.0
    by_length = {name: part.users for name, part in parts.items() if part.by == "history"}
    assert by_length == {"histories up to 1": 1, "histories of 2 to 3": 1}


def test_items_that_are_seen_may_stay():
    popular = Popular(range(ITEMS))
    kept = EvaluationOptions(cutoffs=(1,), resamples=0, exclude_seen=False)
    found = evaluate(popular, [[0]], [[1]], kept, num_items=ITEMS)
    assert popular.asked == [(1, [[]])]
    assert found.metrics["recall_at_1"].value == 0.0


def test_sampled_metrics_have_their_own_name():
    drawn = EvaluationOptions(cutoffs=(1, 3), resamples=0, sampled=5, seed=3)
    asked = []

    class Kept(Popular):
        def recommend(self, histories, k, *, exclude, allowed=None):
            asked.append(allowed)
            return super().recommend(histories, k, exclude=exclude, allowed=allowed)

    found = evaluate(Kept(range(ITEMS)), HISTORIES, HELD_OUT, drawn, num_items=ITEMS)
    assert all(name.startswith("sampled_") for name in found.values())
    (allowed,) = asked
    for row, history, wanted in zip(allowed, HISTORIES, HELD_OUT, strict=True):
        assert row.sum() == 6
        assert row[wanted].all()
        assert not set(np.flatnonzero(row)) & (set(history) - set(wanted))
    assert found == evaluate(Kept(range(ITEMS)), HISTORIES, HELD_OUT, drawn, num_items=ITEMS)
    with pytest.raises(ValueError, match="sampled: found 30, the catalogue has 30 items"):
        evaluate(Popular(range(ITEMS)), HISTORIES, HELD_OUT,
                 EvaluationOptions(sampled=30), num_items=ITEMS)  # fmt: skip


def test_each_item_is_drawn_equally_often():
    from efficientids_flax.evaluation.questions import of_histories
    from efficientids_flax.evaluation.sampled import candidates

    (one,) = of_histories([[2, 5, 6]] * 400, [[3]] * 400)
    drawn = candidates(one, 12, 4, np.random.default_rng(0)).sum(axis=0)
    assert drawn[3] == 400
    assert (drawn[[2, 5, 6]] == 0).all()
    rest = np.delete(drawn, [2, 3, 5, 6])
    # 400 draws of a half: a standard deviation of 10.
    assert abs(rest - 200).max() < 45
    assert rest.sum() == 1600


def test_scores_that_are_no_numbers_find_nothing_and_are_said(ranker):
    broken = Ranker(ranker.model, jax.tree.map(lambda x: np.full_like(x, np.nan), ranker.params))
    found = evaluate(broken, HISTORIES, HELD_OUT, PLAIN)
    assert {one.value for one in found.metrics.values()} == {0.0}
    assert found.empty == USERS
    assert "12 of 12 lists have no item" in found.notes[0]


def test_lists_that_are_there_already():
    lists = np.array([[3, 1, -1], [2, 0, 4]])
    found = evaluate_lists(lists, [[1], [9]], 6, PLAIN)
    assert found.options.cutoffs == (1,)
    assert found.metrics["recall_at_1"].value == 0.0
    options = EvaluationOptions(cutoffs=(2, 3), resamples=0)
    assert evaluate_lists(lists, [[1], [9]], 6, options).metrics["mrr_at_2"].value == 0.25
    with pytest.raises(ValueError, match=r"cutoffs: found \[5\], the lists has 3 items"):
        evaluate_lists(lists, [[1], [9]], 6, EvaluationOptions(cutoffs=(5,)))


def test_labels_that_are_no_items_are_not_taken_for_missed_ones(ranker):
    batch = next_items(np.array([[1, 2, 3]]))
    batch["labels"][0, 1] = ITEMS
    with pytest.raises(ValueError, match=rf"labels: found {ITEMS} at \[0, 1\], expected in"):
        evaluate_batches(ranker, [batch], PLAIN)
    with pytest.raises(
        ValueError, match=rf"held_out 0: found \[{ITEMS}\], expected item ids up to"
    ):
        evaluate(ranker, [[1]], [[ITEMS]], PLAIN)
    del batch["weights"]
    with pytest.raises(ValueError, match="weights: missing"):
        evaluate_batches(ranker, [batch], PLAIN)


def test_what_does_not_fit_is_named():
    popular = Popular(range(ITEMS))
    with pytest.raises(ValueError, match="held_out: found 1 lists for 2 histories"):
        evaluate(popular, [[1], [2]], [[3]], PLAIN, num_items=ITEMS)
    with pytest.raises(ValueError, match="num_items: missing"):
        evaluate(popular, [[1]], [[3]], PLAIN)
    with pytest.raises(ValueError, match="nothing is held out"):
        evaluate(popular, [[1]], [[]], PLAIN, num_items=ITEMS)
    with pytest.raises(ValueError, match=r"history 0: found \[-1\], expected item ids"):
        evaluate(popular, [[-1]], [[3]], PLAIN, num_items=ITEMS)
    with pytest.raises(ValueError, match=r"counts: found \[3\], expected \[30\]"):
        evaluate(popular, [[1]], [[3]], PLAIN, num_items=ITEMS, counts=np.zeros(3))
    with pytest.raises(ValueError, match="cutoffs: expected numbers above 0, each once"):
        EvaluationOptions(cutoffs=(1, 1))
    wrong: Any = SimpleNamespace(recommend=lambda histories, k, exclude: (np.zeros((1, 2)), None))
    with pytest.raises(ValueError, match=r"recommend: found ids \[1, 2\] of float64, expected int"):
        evaluate(wrong, [[1]], [[3]], PLAIN, num_items=ITEMS)
    wrong = SimpleNamespace(recommend=lambda histories, k, exclude: (np.full((1, k), ITEMS), None))
    with pytest.raises(ValueError, match=f"lists: found item {ITEMS}, expected below {ITEMS}"):
        evaluate(wrong, [[1]], [[3]], PLAIN, num_items=ITEMS)
    with pytest.raises(ValueError, match="held_out 0: found 3, expected item ids"):
        evaluate(popular, [[1]], np.array([3]), PLAIN, num_items=ITEMS)
    with pytest.raises(ValueError, match="users: found 1 numbers for 2 histories"):
        evaluate(popular, [[1], [2]], [[3], [4]], PLAIN, num_items=ITEMS, users=[0])
    with pytest.raises(ValueError, match=r"lists: found \[2\] of float32, expected integers"):
        evaluate_lists(np.ones(2, np.float32), [[1]], ITEMS, PLAIN)
    assert EvaluationOptions(cutoffs=[1, 5]) == EvaluationOptions(cutoffs=(1, 5))  # pyright: ignore[reportArgumentType]
