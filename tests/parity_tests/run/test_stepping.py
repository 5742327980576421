"""How far the rounding of gradients reaches in a step, and what remains to compare."""

import jax.numpy as jnp
import numpy as np

from parity_tests.compare import Difference
from parity_tests.recording import Step
from parity_tests.run import Subject
from parity_tests.run.stepping import GRADIENT_ROUNDING, Made, largest_of, with_reach
from parity_tests.steps import within_reach
from tests.efficientids_flax.backbone.small_decoders import LLAMA

RATE = 0.1
SLOPES = np.array([1.0, -1e-3, 1e-9, 0.0], np.float32)
SUBJECT = Subject(LLAMA, {"w": np.zeros(4, np.float32)})


def by_sign(gradients, count, params):
    """Adam's first step: each gradient divided by its own size."""
    slope = gradients["w"]
    return {"w": -RATE * jnp.sign(slope)}, count + 1


def stepped(step=Step(1, {}, {}, {})):  # noqa: B008 (a constant)
    after = np.asarray(by_sign({"w": SLOPES}, 0, None)[0]["w"])
    made = Made(np.zeros(()), {"w": SLOPES}, {"w": after}, 1)
    return with_reach(made, SUBJECT, step, by_sign, [0, 0])


def test_only_gradients_near_rounding_reach_anywhere():
    made, states = stepped()
    assert largest_of(made.gradients) == 1.0
    assert 1e-9 < GRADIENT_ROUNDING < 1e-3
    np.testing.assert_allclose(made.reach["w"], [0, 0, 2 * RATE, 0], atol=1e-8)
    assert states == [1, 1]


def test_recorded_gradients_are_not_rounded():
    made, _ = stepped(Step(1, {}, {"w": SLOPES}, {}))
    np.testing.assert_array_equal(made.reach["w"], np.zeros(4))


def test_what_rounding_may_have_moved_is_counted_and_named():
    made, _ = stepped()
    base = Difference("step 1", "steps/1/w", "w", "parameters", "ok")
    mine, use = made.parameters["w"], np.ones(4, bool)

    def left(recorded):
        return within_reach(base, mine, recorded, made.reach["w"], use)

    other = mine + np.array([0, 0, 0.15, 0], np.float32)
    found, kept = left(other)
    assert found.note.startswith("1 values off by up to 1.5e+00 left out: the rounding of their")
    np.testing.assert_array_equal(kept, [True, True, False, True])
    for wrong in ([0, 0, 0.25, 0], [1e-3, 0, 0, 0], [0, 0, 0, 1e-3]):
        found, kept = left(mine + np.array(wrong, np.float32))
        assert (found.note, kept.all()) == ("", True)
