"""Which way a metric is better: known of the package's own, asked for of others."""

import pytest

from efficientids_flax.core.metrics import RankingSums, token_sums
from efficientids_flax.train.direction import direction, settled_mode
from efficientids_flax.train.options import TrainingOptions

OTHERS = ("loss", "accuracy", "squared_error", "quantile_loss")  # the last two of forecasts


def test_every_metric_that_the_package_defines_has_one():
    import jax.numpy as jnp

    one = jnp.ones((1, 1))
    tokens = token_sums(one, one, correct=one > 0).compute().keys() - {"num_predictions"}
    for name in {*tokens, *RankingSums.zero((1, 20)).compute(), *OTHERS}:
        wanted = "max" if name.split("_at_")[0] in ("recall", "mrr", "ndcg") else None
        wanted = "max" if "accuracy" in name or "correct" in name else wanted or "min"
        assert direction(f"eval_{name}") == direction(name) == wanted, name


def test_a_name_that_says_nothing_needs_the_mode():
    assert direction("eval_auc") is None
    with pytest.raises(ValueError, match=r"best_mode: missing.*'eval_auc'.*'min' or 'max'"):
        TrainingOptions(keep_best="eval_auc")
    assert TrainingOptions(keep_best="eval_auc", best_mode="max").mode == "max"


@pytest.mark.parametrize(("metric", "mode"), [("eval_ndcg_at_10", "min"), ("eval_loss", "max")])
def test_the_worst_is_not_kept_as_the_best(metric, mode):
    with pytest.raises(ValueError, match=f"best_mode: found '{mode}', but '{metric}' is best at"):
        TrainingOptions(keep_best=metric, best_mode=mode)
    with pytest.raises(ValueError, match="leave best_mode out"):
        settled_mode(metric, mode)
