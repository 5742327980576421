"""Distances of arrays: what counts and what does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity_tests.compare.difference import distance, half_distance
from parity_tests.compare.tolerances import HALF, TOLERANCES, tolerance

F = np.float32


def test_it_is_relative_to_the_largest_recorded_magnitude():
    found = distance(np.array([1.0, -8.0], F), np.array([1.5, -8.0], F))
    assert (found.absolute, found.relative) == (0.5, 0.5 / 8)
    assert found.ulps == 0.5 / np.spacing(F(1.5))


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), st.floats(1e-3, 1e3))
def test_scaling_both_changes_nothing(values: list[float], scale: float):
    recorded = np.array(values, np.float64)
    ours = recorded + np.linspace(0, 1, len(values))
    one, other = distance(ours, recorded), distance(ours * scale, recorded * scale)
    assert one.relative == pytest.approx(other.relative, rel=1e-6)


@pytest.mark.parametrize("blocked", [np.inf, -np.inf, np.nan, 2e38, -2.38e38])
def test_masked_values_must_be_at_the_same_places(blocked: float):
    recorded = np.array([1.0, blocked, 2.0], F)
    assert distance(recorded.copy(), recorded).relative == 0
    for wrong in (0.0, -blocked if not np.isnan(blocked) else np.inf, 1e29):
        found = distance(np.array([1.0, wrong, 2.0], F), recorded)
        assert found.relative == np.inf
        assert "masked, infinite or NaN" in found.note
    assert distance(recorded, np.array([1.0, 3.0, 2.0], F)).relative == np.inf


def test_masks_are_of_one_size():
    recorded = np.array([1.0, -2.38e38], F)
    assert distance(np.array([1.0, -2.37e38], F), recorded).relative == np.inf
    assert distance(np.array([1.0, -1e31], F), recorded).relative == np.inf
    assert distance(np.array([1.0, -2.375e38], F), recorded).relative == 0  # in bfloat16


def test_masked_values_count_for_no_magnitude():
    recorded = np.array([1.0, -2e38], F)
    assert distance(np.array([1.1, -2e38], F), recorded).relative == pytest.approx(0.1, rel=1e-5)


def test_rows_of_padding_are_left_out():
    recorded = np.array([[1.0, 2.0], [3.0, 4.0]], F)
    ours = np.array([[1.0, 2.0], [9.0, np.nan]], F)
    assert distance(ours, recorded, np.array([[True], [False]])).relative == 0
    assert distance(ours, recorded).relative == np.inf


def test_whole_numbers_are_equal_or_not():
    found = distance(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 9]))
    assert (found.absolute, found.relative, found.note) == (5, 0.25, "1 not equal")


def test_nothing_is_near_zero():
    assert distance(np.array([1e-30], F), np.zeros(1, F)).relative == np.inf


class TestHalfPrecision:
    exact = np.linspace(1, 2, 100, dtype=F)

    def test_as_much_rounding_as_the_recording_has(self):
        """Errors of 0.005 against 0.004, where values go up to 2."""
        recorded = self.exact + F(0.004)
        error, allowed = half_distance(self.exact - F(0.005), recorded, self.exact)
        assert error.relative == pytest.approx(0.0025, rel=1e-3)
        assert allowed == pytest.approx(HALF * 0.002, rel=1e-3)

    def test_one_value_does_not_stand_out(self):
        ours = self.exact.copy()
        ours[3] += F(0.1)
        error, _ = half_distance(ours, self.exact + F(0.004), self.exact)
        assert error.relative == np.inf
        assert "off float32, the recording" in error.note

    def test_a_mistake_is_none_of_rounding(self):
        """Our float32 result has the mistake too, so only the recording is far from both."""
        error, _ = half_distance(self.exact + F(0.001), self.exact + F(0.1), self.exact)
        assert error.relative == np.inf
        assert "off float32" in error.note


def test_a_recording_can_only_tighten():
    assert tolerance("activations", "float32", {"activations": 1e-7}) == 1e-7
    assert tolerance("activations", "float32", {"activations": 1.0}) == 1e-5
    assert tolerance("activations", "bfloat16") == TOLERANCES["float32"]["activations"]
