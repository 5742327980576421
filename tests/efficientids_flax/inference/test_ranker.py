"""Recommendations against the model's own scores."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from efficientids_flax.core.head import item_vectors
from efficientids_flax.core.models import EfficientIDSModel, SimpleEfficientIDSModel
from efficientids_flax.inference import Ranker, make_prompts, programs, ranker, recommend
from tests.efficientids_flax.compiled import applied
from tests.efficientids_flax.inference.inference_cases import (
    BACKBONE,
    CONFIG,
    HISTORIES,
    MODEL,
    PARAMS,
    PLACES,
    fields,
    filled,
)


def alone(scores: str, history: list[int], mask: list[int] | None = None) -> np.ndarray:
    """[I], of one history by the model's own methods: `<sos>`, the history, nothing after it."""
    batch = fields([0, *history], [0, *(mask or [1] * len(history))])
    found = applied(MODEL, {"params": PARAMS}, batch, method=scores)
    return np.asarray(found)[0, -1, -CONFIG.num_items :]  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize(
    ("scoring", "method"), [("log_probs", "log_probs"), ("original", "scores")]
)
def test_recommendations_are_the_models_best(scoring: Any, method: str):
    found = recommend(MODEL, PARAMS, HISTORIES, 7, scoring=scoring)
    assert found.ids.shape == found.scores.shape == (3, 7)
    for row, history in enumerate(HISTORIES):
        scores = alone(method, history)
        np.testing.assert_array_equal(found.ids[row], np.argsort(-scores, kind="stable")[:7])
        np.testing.assert_allclose(found.scores[row], scores[found.ids[row]], rtol=1e-5, atol=1e-5)


def test_as_many_as_each_history_asks_for():
    whole = recommend(MODEL, PARAMS, HISTORIES, 7)
    found = recommend(MODEL, PARAMS, HISTORIES, [7, 1, 3])
    for row, k in enumerate([7, 1, 3]):
        np.testing.assert_array_equal(found.ids[row], [*whole.ids[row, :k], *[-1] * (7 - k)])
        np.testing.assert_array_equal(found.scores[row, :k], whole.scores[row, :k])
        assert np.isneginf(found.scores[row, k:]).all()
    assert found.scores.dtype == np.float32 and found.ids.dtype == np.int32


def test_queries_and_vectors_for_other_searches_give_the_originals_scores():
    config = dataclasses.replace(CONFIG, use_correction=False, soft_cap_logits=None)
    model = EfficientIDSModel(config, PLACES)
    served = Ranker(model, PARAMS)
    found = served.queries(HISTORIES) @ item_vectors(served.index).T
    wanted = served.recommend(HISTORIES, CONFIG.num_items, scoring="original")
    np.testing.assert_array_equal(np.argsort(-found, axis=1), wanted.ids)
    np.testing.assert_allclose(-np.sort(-found, axis=1), wanted.scores, rtol=1e-5, atol=1e-5)


def test_parameters_on_the_host_are_not_copied_for_its_own_processor():
    def aligned(leaf: Any) -> np.ndarray:  # as XLA needs them
        room = np.empty(leaf.nbytes + 64, np.uint8)
        start = -room.ctypes.data % 64
        kept = room[start : start + leaf.nbytes].view(leaf.dtype).reshape(leaf.shape)
        kept[...] = leaf
        return kept

    params = jax.tree.map(aligned, PARAMS)
    served = Ranker(MODEL, params)
    for leaf, given in zip(*map(jax.tree.leaves, (served.params, params)), strict=True):
        assert np.shares_memory(np.asarray(leaf), given)


def test_words_between_the_items():
    history, mask = [9, 17, 9, 4, 2], [0, 1, 0, 1, 0]
    found = recommend(MODEL, PARAMS, [history], 30, item_masks=[mask])
    wanted = alone("log_probs", history, mask)
    np.testing.assert_array_equal(found.ids[0, :3], np.argsort(-wanted, kind="stable")[:3])


def test_probabilities_are_those_of_the_model_with_words():
    found = recommend(MODEL, PARAMS, [[3]], 30)
    batch = fields([0, 3], [0, 1])
    whole = applied(MODEL, {"params": PARAMS}, batch, method="log_probs")
    words = np.exp(np.asarray(whole)[0, -1, :11], dtype=np.float64).sum()  # pyright: ignore[reportIndexIssue]
    assert np.exp(found.scores[0], dtype=np.float64).sum() + words == pytest.approx(1, abs=1e-5)


def test_scales_of_the_words_count():
    """Of the hidden state and of the logits: words are in the denominator as the loss has them."""
    backbone = dataclasses.replace(BACKBONE, logits_divisor=0.25)
    config = dataclasses.replace(CONFIG, scale_before_logits=True, backbone=backbone)
    model = EfficientIDSModel(config, PLACES)
    whole = applied(model, {"params": PARAMS}, fields([0, 3], [0, 1]), method="log_probs")
    found = recommend(model, PARAMS, [[3]], 30)
    own = np.asarray(whole)[0, -1, 11 + found.ids[0]]  # pyright: ignore[reportIndexIssue]
    np.testing.assert_allclose(found.scores[0], own, rtol=1e-5, atol=1e-5)


def test_the_prompt_is_the_originals():
    found = make_prompts(CONFIG, [[3, 17], [4]])
    assert {name: rows[0].tolist() for name, rows in found.batch.items()} == {
        "ids":                [0, 3, 17, 102, 1, 0, 0, 0],
        "input_item_weights": [0, 1, 1, 1, 0, 0, 0, 0],
        "inputs_indicator":   [1, 1, 1, 0, 0, 0, 0, 0],
        "paddings":           [0, 0, 0, 0, 0, 1, 1, 1],
    }  # fmt: skip
    np.testing.assert_array_equal(found.last, [2, 1])  # the target is predicted before its place
    np.testing.assert_array_equal(found.seen, [[3, 17] + [-1] * 6, [4] + [-1] * 7])


def test_the_placeholder_is_seen_where_the_model_looks_ahead():
    """Its row, clipped to the last item's, is part of what a bidirectional model was trained on."""
    changed = jax.tree.map(np.array, PARAMS)
    changed["item_embedding"]["kernel"][:, -1] += 1.0

    def scores(mask: Any, params: Any) -> dict[int, float]:
        backbone = dataclasses.replace(BACKBONE, attention_mask=mask)
        model = EfficientIDSModel(dataclasses.replace(CONFIG, backbone=backbone), PLACES)
        found = recommend(model, params, [[3, 17]], 30, scoring="original", exclude=[members])
        return dict(zip(found.ids[0].tolist(), found.scores[0].tolist(), strict=True))

    members = PLACES.members[PLACES.cluster_of[29]].tolist()  # whose own scores the row changes
    assert scores("causal", changed) == scores("causal", PARAMS)
    assert scores("prefix", changed) == scores("prefix", PARAMS)
    assert scores("bidirectional", changed) != scores("bidirectional", PARAMS)


def test_a_model_without_words():
    model = SimpleEfficientIDSModel(
        num_items=30, item_embedding_dim=4, model_dims=8, num_heads=2, num_layers=1,
        clustering_info=PLACES,
    )  # fmt: skip
    params = filled(model, {"ids": np.array([[1]])})
    found = recommend(model, params, HISTORIES, 4)
    for row, history in enumerate(HISTORIES):
        batch = {"ids": np.array([history])}
        scores = np.asarray(applied(model, {"params": params}, batch, method="log_probs"))[0, -1]  # pyright: ignore[reportIndexIssue]
        np.testing.assert_array_equal(found.ids[row], np.argsort(-scores, kind="stable")[:4])
    assert make_prompts(model.config, [[3, 17]]).batch.keys() == {
        "ids",
        "inputs_indicator",
        "paddings",
    }
    with pytest.raises(
        ValueError, match="history 1: is empty; a model without words needs at least"
    ):
        recommend(model, params, [[1], []], 4)


def test_a_full_softmax():
    config = dataclasses.replace(
        CONFIG, full_softmax=True, num_clusters=None, trainable_cluster_embeddings=False
    )
    model = EfficientIDSModel(config)
    params = filled(model, fields([0, 1], [0, 1]))
    found = recommend(model, params, [[3, 17]], 30)
    batch = fields([0, 3, 17], [0, 1, 1])
    wanted = np.asarray(applied(model, {"params": params}, batch, method="log_probs"))[0, -1, 11:]  # pyright: ignore[reportIndexIssue]
    np.testing.assert_array_equal(found.ids[0], np.argsort(-wanted, kind="stable"))
    np.testing.assert_allclose(found.scores[0], wanted[found.ids[0]], atol=1e-5)


def test_no_history_at_all():
    assert recommend(MODEL, PARAMS, [], 30).ids.shape == (0, 30)
    found = recommend(MODEL, PARAMS, [[]], 30)  # after `<sos>` alone
    np.testing.assert_array_equal(found.ids[0, :3], np.argsort(-alone("log_probs", []))[:3])


def test_items_that_are_left_out():
    whole = recommend(MODEL, PARAMS, HISTORIES, 30).ids
    ranks = Ranker(MODEL, PARAMS)
    unseen = ranks.recommend(HISTORIES, 30, exclude_seen=True)
    lists = ranks.recommend(HISTORIES, 30, exclude=[[int(row[0])] for row in whole])
    allowed = np.zeros(30, bool)
    allowed[[2, 4, 6]] = True
    chosen = ranks.recommend(HISTORIES, 5, allowed=allowed, exclude_seen=True)
    each = np.stack([allowed, ~allowed, allowed])
    own = ranks.recommend(HISTORIES, 5, allowed=each)
    for row, history in enumerate(HISTORIES):
        kept = [item for item in whole[row] if item not in history]
        assert unseen.ids[row].tolist() == kept + [-1] * (30 - len(kept))
        assert np.all(np.isneginf(unseen.scores[row, len(kept) :]))
        assert lists.ids[row].tolist() == [*whole[row][1:], -1]
        some = [item for item in whole[row] if item in (2, 4, 6) and item not in history]
        assert chosen.ids[row].tolist() == some + [-1] * (5 - len(some))
        assert set(own.ids[row]) - {-1} <= set(np.flatnonzero(each[row]))


def test_only_the_last_ids_of_a_history():
    found = recommend(MODEL, PARAMS, [[9, 8, 7, 3, 17]], 30, max_history=2)
    unseen = recommend(MODEL, PARAMS, [[9, 8, 7, 3, 17]], 30, max_history=2, exclude_seen=True)
    whole = recommend(MODEL, PARAMS, [[3, 17]], 30).ids
    kept = [item for item in whole[0].tolist() if item not in (9, 8, 7, 3, 17)]
    assert unseen.ids[0].tolist() == [*kept, *[-1] * 5]  # those cut off were seen too
    np.testing.assert_array_equal(found.ids, whole)


def test_one_compilation_serves_all_of_a_padded_shape():
    first = Ranker(MODEL, PARAMS)
    first.recommend([[1], [2], [3]], 7)
    compiled = programs.best_items._cache_size()  # pyright: ignore[reportFunctionMemberAccess]
    first.recommend([[1, 2], [3, 4, 5], [6], [7]], 7)  # four rows of eight, as before
    Ranker(MODEL, PARAMS).recommend([[4], [5], [6]], 7)
    assert programs.best_items._cache_size() == compiled  # pyright: ignore[reportFunctionMemberAccess]


def test_histories_may_be_read_once():
    given = [[1], [2], [3]]
    for found, wanted in zip(
        recommend(MODEL, PARAMS, iter(given), 7), recommend(MODEL, PARAMS, given, 7), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"histories": [[1], [2, 30]]}, r"history 1: item 30 at place 1 is outside of \[0, 30\)"),
        ({"histories": [[-1]]}, r"history 0: item -1 at place 0 is outside of \[0, 30\)"),
        ({"histories": [[11]], "item_masks": [[0]]}, r"word 11 at place 0 is outside of \[0, 11\)"),
        ({"histories": [np.ma.array([1, 2], mask=[0, 1])]}, "history 0: a masked array"),
        ({"histories": [[1]], "exclude": [np.ma.array([1, 2], mask=[0, 1])]},
         "history 0: exclude: a masked array"),
        ({"histories": [[1]], "allowed": [[1], [1, 0]]}, "allowed: lists of different lengths"),
        ({"histories": [[1.5]]}, r"history 0: found \[1\] of float64, expected a list of ids"),
        ({"histories": [[[1]]]}, r"history 0: found \[1, 1\] of int64, expected a list of ids"),
        ({"histories": [[1, 2]], "item_masks": [[1]]}, r"item mask \[1\], expected 2 times 0 or 1"),
        ({"histories": [[1]], "item_masks": [[2]]}, r"item mask \[2\], expected 1 times 0 or 1"),
        ({"histories": [[1]], "item_masks": []}, "item_masks: found 0 for 1 histories"),
        ({"histories": [[1] * 18]}, r"18 ids, the model's 20 positions have room for 17 \(max_hi"),
        ({"histories": [[1]], "max_history": 0}, "max_history: expected above 0, found 0"),
        ({"histories": [[1]], "k": 31}, r"k: expected in \[1, 30\], the number of items, found 31"),
        ({"histories": [[1]], "k": 0}, r"k: expected in \[1, 30\].*found 0"),
        ({"histories": [[1]], "k": [2, 3]}, "k: found 2 numbers, expected one"),
        ({"histories": [[1]], "exclude": []}, "exclude: found 0 lists for 1 histories"),
        ({"histories": [[1]], "exclude": [[2, 30]]}, r"history 0: exclude: 30 is outside of \[0, "),
        ({"histories": [[1]], "exclude": [[1.5]]}, r"history 0: exclude: found \[1\] of float64"),
        ({"histories": [[1]], "k": 2.5}, r"k: expected in \[1, \d+\], .* found 2.5"),
        ({"histories": [[1]], "allowed": np.arange(30)}, "allowed: expected True or False"),
        ({"histories": [[1]], "exclude": [[2**32]]}, "history 0: exclude: 4294967296 is outside"),
        ({"histories": [[1]], "allowed": np.ones(3, bool)}, r"allowed: found \[3\], exp"),
        ({"histories": [[1]], "scoring": "best"}, "scoring: expected log_probs or original"),
        ({"histories": [[40 + n for n in range(9)]]}, "and 4 more"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered(given: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        recommend(MODEL, PARAMS, **{"k": 3} | given)


def test_prompts_of_others_are_checked():
    """A tokenizer may have more words than the model."""
    prompts = make_prompts(MODEL.config, [[1, 2]])
    prompts.batch["ids"][0, 0] = 11
    with pytest.raises(
        ValueError, match=r"ids: found 11 at \[0, 0\], expected in \[0, 11\), a word"
    ):
        Ranker(MODEL, PARAMS).rank(prompts, 3)


def test_a_history_that_just_fits():
    assert recommend(MODEL, PARAMS, [[1] * 17], 3).ids.shape == (1, 3)


@pytest.mark.parametrize("at_once", [16, 64, 1 << 12])
def test_many_histories_are_asked_in_parts(monkeypatch: pytest.MonkeyPatch, at_once: int):
    """As few rows at once as memory is to be bounded by; the answers are the same."""
    rng = np.random.default_rng(2)
    many = [rng.integers(0, 30, rng.integers(1, 9)).tolist() for _ in range(19)]
    allowed = rng.random((19, 30)) < 0.7
    options: Any = {"exclude_seen": True, "exclude": [[row] for row in range(19)]}
    monkeypatch.setattr(ranker, "POSITIONS_AT_ONCE", at_once)
    found = recommend(MODEL, PARAMS, many, 5, allowed=allowed, **options)
    assert found.ids.shape == (19, 5)
    for row in range(0, 19, 6):
        one = recommend(
            MODEL, PARAMS, [many[row]], 5, allowed=allowed[row], exclude_seen=True, exclude=[[row]]
        )
        assert np.array_equal(found.ids[row], one.ids[0])
        np.testing.assert_allclose(found.scores[row], one.scores[0], rtol=1e-5)


def test_what_was_seen_takes_no_room_where_it_may_come_again(monkeypatch: pytest.MonkeyPatch):
    """Of many histories it is as wide as the longest of them."""
    asked: list[Any] = []
    monkeypatch.setattr(Ranker, "rank", lambda self, prompts, k, **_: asked.append(prompts))
    ranks, history = Ranker(MODEL, PARAMS), [1] * 40
    for seen in (False, True):
        ranks.recommend([history], 3, max_history=4, exclude_seen=seen)
    assert [prompts.seen.shape[1] for prompts in asked] == [8, 64]


def test_no_more_positions_are_asked_at_once_however_many_histories():
    backbone = dataclasses.replace(BACKBONE, max_positions=None, position_embedding="none")
    config = dataclasses.replace(CONFIG, backbone=backbone)
    for length in (8, 64, 512, 1 << 14):
        prompts = make_prompts(config, [[0] * (length - 3)] * 3)
        assert 1 <= ranker._rows_at_once(prompts) * length <= max(ranker.POSITIONS_AT_ONCE, length)
