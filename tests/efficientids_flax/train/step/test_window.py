"""What a window of steps amounts to, with a clock of the test's own."""

import pytest

from efficientids_flax.train.step import FINITE
from efficientids_flax.train.step import window as module
from efficientids_flax.train.step.window import Totals, Window


def test_speeds_are_of_what_batches_of_several_lengths_had(monkeypatch):
    """The first step, which compiles, is in the sums but in no speed."""
    now = [0.0]
    monkeypatch.setattr(module, "clock", lambda: now[0])
    totals = Totals(("loss", FINITE))
    now[0] = 100.0  # of compiling
    totals.begin(tokens=16, flops=1e3)
    window = Window()
    window.flops = 1e3 + 7e3
    now[0] += 2.0
    totals.add(window, [[3.0, 1.0], [1.0, 1.0]], tokens=16 + 2048)
    found = totals.take(peak=7e3)
    assert found["loss"] == 2.0
    assert found["steps_per_second"] == pytest.approx(0.5)
    assert found["tokens_per_second"] == pytest.approx(1024)
    assert found["flops_per_second"] == pytest.approx(3.5e3)
    assert found["mfu"] == pytest.approx(0.5)
