"""Bootstrap intervals: against the closed form of a mean, and by whom they resample."""

import numpy as np
import pytest

from efficientids_flax.evaluation import bootstrap

HOW = {"resamples": 2000, "level": 0.95, "seed": 0}


def test_of_a_mean_it_is_as_wide_as_theory_says():
    hits = np.random.default_rng(0).random((400, 1)) < 0.3
    (found,) = bootstrap(hits, np.ones(400), **HOW)
    mean = hits.mean()
    half = 1.96 * np.sqrt(mean * (1 - mean) / 400)
    assert found.value == pytest.approx(mean)
    # Percentiles of 2,000 draws of a mean of 400 are within a tenth of the normal ones.
    assert found.value - found.low == pytest.approx(half, rel=0.1)
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert bootstrap(hits, np.ones(400), **HOW) == [found]
    assert bootstrap(hits, np.ones(400), **{**HOW, "seed": 1}) != [found]


def test_answers_of_one_user_are_not_independent():
    rng = np.random.default_rng(0)
    each = (rng.random(40) < 0.5).astype(float)
    (users,) = bootstrap(10 * each[:, None], np.full(40, 10.0), **HOW)
    (questions,) = bootstrap(np.repeat(each, 10)[:, None], np.ones(400), **HOW)
    assert users.value == questions.value
    assert users.high - users.low > 2.5 * (questions.high - questions.low)  # sqrt(10) = 3.2


def test_users_count_by_what_was_asked_and_not_at_all_without():
    sums, weights = np.array([[2.0], [0.0], [7.0]]), np.array([4.0, 1.0, 0.0])
    (found,) = bootstrap(sums, weights, **HOW)
    assert found.value == pytest.approx(2 / 5)
    assert (found.low, found.high) == (0.0, 0.5)


def test_without_two_users_there_is_no_interval():
    (one,) = bootstrap(np.ones((1, 1)), np.ones(1), **HOW)
    assert one.value == 1.0
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(bootstrap(np.ones((0, 1)), np.ones(0), **HOW)[0]).all()
    (plain,) = bootstrap(np.eye(2)[:, :1], np.ones(2), **{**HOW, "resamples": 0})
    assert plain.value == 0.5
    assert np.isnan(plain.low)
