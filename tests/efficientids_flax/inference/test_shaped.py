"""The ranker of few shapes: the answers of `Ranker`, whatever a history is asked with."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
import pytest

from efficientids_flax.inference import Question, Ranker, ShapedRanker, Sizes, shapes_for
from tests.efficientids_flax.inference.inference_cases import CONFIG, HISTORIES, MODEL, PARAMS

TOLERANCE = 2e-6  # of float32 log-probabilities: products are taken in another order
SEARCHES = Sizes(3, 4, False), Sizes(8, 12, True)
SHAPES = shapes_for(CONFIG, rows=4, history=9, searches=SEARCHES, candidates=6)
RANKER = Ranker(MODEL, PARAMS)


@pytest.fixture(scope="module")
def shaped() -> ShapedRanker:
    return ShapedRanker(RANKER, SHAPES)


@contextmanager
def compiled() -> Iterator[list[str]]:
    """Names of what JAX compiles in a block."""
    found: list[str] = []

    def heard(event: str, seconds: float, **_: object) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(heard)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(heard)


def test_shapes_are_few_and_hold_the_longest():
    assert SHAPES.rows == (1, 2, 4)
    assert SHAPES.rare == (1, 4)
    assert SHAPES.lengths[-1] == 9
    many = shapes_for(CONFIG, rows=64, history=9, searches=SEARCHES, candidates=6)
    assert many.rows == (1, 2, 4, 8, 16, 64)
    assert many.rare == (1, 8, 64)
    most = shapes_for(CONFIG, rows=1000, history=9, searches=SEARCHES, candidates=6)
    assert most.rows == (1, 2, 4, 8, 16, 64, 256, 1000)


def test_answers_are_those_of_the_ranker_alone_and_together(shaped: ShapedRanker):
    nothing = shaped.memberships({})
    with compiled() as found:
        alone = [shaped.find([Question(ids, k=3)], nothing) for ids in HISTORIES]
        together = shaped.find([Question(ids, k=3) for ids in HISTORIES], nothing)
    assert found == [], "nothing is compiled by a question"
    for row, ids in enumerate(HISTORIES):
        wanted = RANKER.recommend([ids], 3)
        for got, of in ((alone[row], 0), (together, row)):
            np.testing.assert_array_equal(got.ids[of], wanted.ids[0])
            np.testing.assert_allclose(got.scores[of], wanted.scores[0], rtol=0, atol=TOLERANCE)


def test_each_question_has_its_own_filters(shaped: ShapedRanker):
    even, low = np.arange(0, 30, 2), np.arange(10)
    sets = shaped.memberships({0: even, 31: low})
    questions = [
        Question([3, 17, 29], k=8, needed=1),
        Question([0], k=3, needed=1, unwanted=1 << 31, excluded=[10, 12]),
        Question([5, 4], k=8),
    ]
    found = shaped.find(questions, sets)
    items = np.arange(30)
    allowed = (items % 2 == 0, (items % 2 == 0) & (items > 9), items >= 0)
    for row, (one, mask) in enumerate(zip(questions, allowed, strict=True)):
        wanted = RANKER.recommend([one.ids], one.k, allowed=mask, exclude=[one.excluded])
        np.testing.assert_array_equal(found.ids[row, : one.k], wanted.ids[0])
        np.testing.assert_allclose(
            found.scores[row, : one.k], wanted.scores[0], rtol=0, atol=TOLERANCE
        )


def test_candidates_have_the_log_probabilities_of_the_search(shaped: ShapedRanker):
    questions = [Question(ids, candidates=[29, 0, 7, 7][: row + 2])
                 for row, ids in enumerate(HISTORIES)]  # fmt: skip
    scores = shaped.score(questions)
    for row, one in enumerate(questions):
        every = RANKER.recommend([one.ids], 30)
        by_item = np.empty(30, np.float32)
        by_item[every.ids[0]] = every.scores[0]
        count = len(one.candidates or ())
        np.testing.assert_allclose(
            scores[row, :count], by_item[list(one.candidates or ())], rtol=0, atol=TOLERANCE
        )
        assert np.isneginf(scores[row, count:]).all()


def test_as_many_are_asked_together_as_is_fastest(shaped: ShapedRanker):
    assert shaped.seconds.keys() == {1, 2, 4} and min(shaped.seconds.values()) > 0
    shaped.seconds = {1: 1.0, 2: 1.1, 4: 4.0}  # four at once take as long as four times one
    assert [shaped.together(waiting) for waiting in (1, 2, 3, 4, 9)] == [1, 2, 2, 2, 2]
    shaped.seconds = {1: 1.0, 2: 1.0, 4: 1.1}
    assert [shaped.together(waiting) for waiting in (1, 2, 3, 4, 9)] == [1, 2, 3, 4, 4]


def test_words_are_words(shaped: ShapedRanker):
    found = shaped.find([Question([5, 17, 3], items=[0, 1, 0], k=3)], shaped.memberships({}))
    wanted = RANKER.recommend([[5, 17, 3]], 3, item_masks=[[0, 1, 0]])
    np.testing.assert_array_equal(found.ids, wanted.ids)


def test_what_is_too_much_is_an_error(shaped: ShapedRanker):
    with pytest.raises(KeyError, match=r"k=9.*expected at most"):
        shaped.find([Question([1], k=9)], shaped.memberships({}))


def test_the_same_model_is_not_compiled_again(shaped: ShapedRanker):
    again = Ranker(MODEL, jax.tree.map(lambda leaf: leaf * 0.5, RANKER.params))
    with compiled() as found:
        other = ShapedRanker(again, SHAPES, like=shaped)
    assert found == [] and other.compiled == 0 and shaped.compiled > 0
    got = other.find([Question([3, 17, 29], k=3)], other.memberships({}))
    np.testing.assert_array_equal(got.ids, again.recommend([[3, 17, 29]], 3).ids)
