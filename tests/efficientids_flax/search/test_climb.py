"""The search finds models of which several settings are wrong, and ends when it is told to."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from efficientids_flax.search.climb import Climb
from efficientids_flax.search.moves import choices
from efficientids_flax.settings import with_values
from tests.efficientids_flax.search.small import CONFIG

WANTED: dict[str, Any] = {
    "activation": "squared_relu", "norm_epsilon": 1e-3, "rotary": {"pairing": "interleaved"},
    "position_embedding": "none", "final_logit_cap": 20.0,
}  # fmt: skip


TARGET = with_values(CONFIG, WANTED)
assert TARGET is not None
THEN = TARGET.to_dict()


def wrong(config) -> int:
    """How many settings are not as wanted."""
    now = config.to_dict()
    return sum(now[key] != THEN[key] for key in now)


def test_many_wrong_settings_are_found():
    climb = Climb(lambda config: np.array([wrong(config)]))
    best = climb.run(CONFIG, choices(CONFIG, {}))
    assert wrong(best) == 0
    assert climb.finished


def test_two_settings_that_help_only_together_are_found():
    together = ("attention_logit_cap", "query_scaling")
    target = replace(CONFIG, attention_logit_cap=30.0, query_scaling="none")

    def score(config):
        right = sum(getattr(config, key) == getattr(target, key) for key in together)
        return np.array([float(right < len(together))])

    assert score(Climb(score).run(CONFIG, choices(CONFIG, {})))[0] == 0


def test_it_ends_when_it_is_good_enough_or_time_is_over():
    seen = []
    climb = Climb(lambda config: np.array([wrong(config)]), progress=seen.append, enough=1.0)
    assert wrong(climb.run(CONFIG, choices(CONFIG, {}))) <= 1
    assert climb.finished
    late = Climb(lambda config: np.array([wrong(config)]), seconds=-1.0, progress=seen.append)
    assert late.run(CONFIG, choices(CONFIG, {})) == CONFIG
    assert not late.finished
    assert seen[-1] == "time is over"


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_models_without_a_loss_are_never_best(value):
    def score(config):
        return np.array([1.0 if config == CONFIG else value])

    assert Climb(score).run(CONFIG, choices(CONFIG, {})) == CONFIG
