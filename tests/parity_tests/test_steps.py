"""Which gradients of a recorded step are not meaningful."""

import numpy as np

from parity_tests.steps import noise_of


def test_noise_is_left_out_and_words_that_did_not_occur_are_not():
    slope = np.array([[0.0, 1e-9], [0.0, 0.0], [0.0, 1.0], [1e-9, 1.0]])
    left_out = [[True, True], [False, False], [False, False], [True, False]]
    np.testing.assert_array_equal(noise_of(slope, 1e-6), left_out)
    assert [bool(noise_of(np.float32(x), 1e-6)) for x in (0.0, 1e-9, 1.0)] == [False, True, False]
