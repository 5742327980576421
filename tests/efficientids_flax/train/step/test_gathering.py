"""Several batches that are measured at once give what each gives by itself."""

from functools import reduce
from operator import add

import jax
import numpy as np
import pytest

from efficientids_flax.core.models import EfficientIDSModel
from efficientids_flax.sharding import make_mesh
from efficientids_flax.train.preparing import on_mesh
from efficientids_flax.train.state import BatchPlacer
from efficientids_flax.train.step import Evaluator, gathering, make_objective
from efficientids_flax.train.step.objectives import own_loss
from tests.efficientids_flax.core.model_cases import ITEMS, WORDS, clustering, config
from tests.efficientids_flax.train.networks import numbers_of

ROWS, LENGTH, BATCHES = 8, 6, 5


def batches(words):
    """Some labels a row, of one batch none; the last batch has fewer rows and excluded items."""
    rng = np.random.default_rng(0)
    for number in range(BATCHES):
        shape = (ROWS, LENGTH)
        is_item = (rng.random(shape) < 0.7).astype(np.float32)
        ids = rng.integers(0, min(ITEMS, WORDS), (ROWS, LENGTH + 1)).astype(np.int32)
        found = {
            "ids": ids[:, :-1], "labels": ids[:, 1:],
            "weights": (rng.random(shape) < 0.2).astype(np.float32) * (number != 2),
            "exclude": rng.integers(-1, ITEMS, (ROWS, 3 if number < BATCHES - 1 else 2)),
        }  # fmt: skip
        if words:
            found |= {"input_item_weights": is_item, "label_item_weights": is_item * (number != 2)}
        rows = ROWS if number < BATCHES - 1 else ROWS // 2
        yield {name: value[:rows] for name, value in found.items()}


CASES = {
    "hierarchical": {},
    "full": {"full_softmax": True},
    "z-loss": {"z_loss_weight": 0.1, "use_correction": True},
}


@pytest.mark.parametrize("case", CASES)
def test_batches_together_are_batches_apart(case, monkeypatch):
    monkeypatch.setattr(own_loss, "LARGE", 0)
    settings = config(**CASES[case])
    tables = None if settings.full_softmax else clustering()
    model = EfficientIDSModel(config=settings, clustering_info=tables)
    given = list(batches(words=True))
    params = numbers_of(model)
    goal = make_objective(model, scoring="original" if case == "z-loss" else "log_probs",
                          exclude_seen=True)  # fmt: skip
    sums = jax.jit(lambda batch: goal.sums(params, batch, {}))
    apart = [sums(batch) for batch in given]
    whole = jax.jit(
        lambda apart: [reduce(add, [found[name] for found in apart]).compute() for name in apart[0]]
    )(apart)
    wanted = {metric: float(value) for found in whole for metric, value in found.items()}

    asked, add_one = [], gathering.Waiting.add

    def noted(self, batch, times):
        asked.append(times)
        return add_one(self, batch, times)

    monkeypatch.setattr(gathering.Waiting, "add", noted)
    monkeypatch.setattr(gathering, "POSITIONS", 32 * ROWS)  # some wait for others
    places = [BatchPlacer(None, settings)]
    if jax.device_count() % 4 == 0 and case == "hierarchical":
        places.append(BatchPlacer(make_mesh(data=2, fsdp=2, tensor=jax.device_count() // 4)))
    for place in places:
        asked.clear()
        with on_mesh(place.mesh):
            found = Evaluator(goal, place)({"params": params}, given)
        assert len(asked) == BATCHES  # none was measured by itself
        assert min(times.shape[1] for times in asked) < LENGTH
        names = {"total_loss": "loss", "fraction_of_correct_next_step_preds": "accuracy"}
        wanted = {f"eval_{names.get(name, name)}": value for name, value in wanted.items()}
        # Sums in another order: a rounding or two.
        assert found == pytest.approx(wanted, rel=2e-6, abs=1e-7)
        wanted = {name.removeprefix("eval_"): value for name, value in wanted.items()}


def test_ids_out_of_range_on_the_device_are_told(monkeypatch):
    monkeypatch.setattr(own_loss, "LARGE", 0)
    settings = config(full_softmax=True)
    model = EfficientIDSModel(config=settings)
    given = list(batches(words=True))
    ids = np.full_like(given[3]["ids"], WORDS + ITEMS)
    given[3] = given[3] | {"ids": ids, "input_item_weights": np.ones_like(ids)}
    given = jax.device_put(given)
    evaluator = Evaluator(make_objective(model), BatchPlacer(None, settings))
    with pytest.raises(ValueError, match=rf"out of range: {ROWS * LENGTH} in ids"):
        evaluator({"params": numbers_of(model)}, given)


def test_a_batch_that_lacks_a_field_is_refused_by_its_name(monkeypatch):
    monkeypatch.setattr(own_loss, "LARGE", 0)
    settings = config(full_softmax=True)
    given = {name: value for name, value in next(batches(words=True)).items() if name != "weights"}
    goal = make_objective(EfficientIDSModel(config=settings))
    with pytest.raises(ValueError, match="weights"):
        Evaluator(goal, BatchPlacer(None, settings))({"params": {}}, [given])
