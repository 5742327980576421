"""A run that goes on is the same run, or an error names what differs and what accepts it."""

import json
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.models import SimpleEfficientIDSModel
from efficientids_flax.data.files import next_items
from efficientids_flax.stored import ItemNames, training_of
from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.optimizer import create_learning_rate_schedule, create_optimizer
from efficientids_flax.train.state.description import described
from efficientids_flax.train.state.disk.checkpoint import Checkpoints
from efficientids_flax.train.state.fingerprint import (
    RunMismatch,
    differences,
    loss_facts,
    run_facts,
)
from tests.efficientids_flax.train.networks import (
    BATCH,
    Network,
    batches,
    begin,
    data,
    numbers_of,
    same,
    trainer,
)
from tests.efficientids_flax.train.state.changes import (
    CREATED,
    as_list,
    copied,
    go_on,
    other_size,
    smoothed,
)


def other_rows():
    return ShuffledBatches(data(seed=1), BATCH, seed=3)


@pytest.mark.parametrize(
    ("source", "options", "named"),
    [
        (other_rows, {}, "rows: x was"),
        (other_size, {}, "batch_size: the checkpoint has 8, this run 16"),
        (batches, {"optimizer": create_optimizer(1e-2, beta1=0.8)}, "optimizer: beta1 was 0.9"),
        (batches, {"network": Network(dropout=0.5)}, "model: dropout was 0.2, is 0.5"),
        (batches, {"frozen_params": ["Dense_0"]}, "frozen: frozen now: Dense_0/bias, Dense_0/kern"),
        (
            batches,
            {"optimizer": create_optimizer(create_learning_rate_schedule(1e-2, 0, 20))},
            "schedule: learning_rate at step 1 was 0.01, is 0.009938",
        ),
        (as_list, {}, "rows: first_batch was"),
        (batches, {"loss_fn": smoothed(0.1)}, "loss: function was loss_fn, is smoothed.<locals>"),
    ],
)
def test_a_difference_is_named_and_can_be_allowed(finished, tmp_path, source, options, named):
    with pytest.raises(ValueError) as error:
        go_on(finished, source(), **options)
    name = named.partition(":")[0]
    assert named in str(error.value)
    assert f"--allow-change {name}" in str(error.value)
    assert str(finished / "3") in str(error.value)


def test_an_optax_transformation_is_known_by_its_numbers(tmp_path):
    made = trainer(tmp_path, optimizer=optax.adamw(1e-2))
    made.train(begin(made), batches(), num_steps=2)
    with pytest.raises(RunMismatch, match=r"b1 was 0.9, is 0.8"):
        go_on(tmp_path, optimizer=optax.adamw(1e-2, b1=0.8))


@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 / (count + 1)])
def test_injected_numbers_and_schedules_are_known_and_those_of_now_are_taken(tmp_path, rate):
    """The state holds them, so that those of the checkpoint would stay."""

    def injected(rate):
        return {"optimizer": optax.inject_hyperparams(optax.sgd)(rate)}

    made = trainer(tmp_path, **injected(1e-2 if rate == 0.5 else optax.linear_schedule(1.0, 0, 9)))
    made.train(begin(made), batches(), num_steps=2)
    with pytest.raises(
        RunMismatch, match=r"optimizer: .*was 0\.01, is 0\.5|optimizer: .*schedule_fn"
    ):
        go_on(tmp_path, **injected(rate))
    made, _ = go_on(tmp_path, steps=3, allow_changes=("optimizer",), **injected(rate))
    assert made.history[-1]["learning_rate"] == pytest.approx(rate if rate == 0.5 else rate(2))


def test_numbers_that_an_object_of_a_method_holds_are_known():
    def told(every):
        return described(optax.MultiSteps(optax.adam(1e-2), every).gradient_transformation().update)

    then, now = {"optimizer": told(2)}, {"optimizer": told(4)}
    found = differences(then, now, ["optimizer"])["optimizer"]
    assert "every_k_schedule was 2, is 4" in found
    before = {path: value for path, value in told(2).items() if "held" not in path}
    assert not differences({"optimizer": before}, now, ["optimizer"])  # of an older release


class Loading(dict):
    """Whatever is asked for would be loaded."""

    def items(self):
        raise AssertionError

    def __getattr__(self, name):
        raise RuntimeError(name)


def test_what_a_function_holds_may_be_of_any_kind():
    def holding(value):
        return lambda: value

    half = jnp.zeros(3, jnp.bfloat16)
    assert described(holding(half)) == described(holding(np.asarray(half)))
    assert described(holding(half)) != described(holding(half + 1))
    assert described(holding(Loading()))
    assert described(holding(deque([1, 2]))) == described(holding([1, 2]))
    of_objects = [np.array([object()]) for _ in range(2)]  # whose addresses differ
    assert described(holding(of_objects[0])) == described(holding(of_objects[1]))
    large = {user: [[user] * 20] * 20 for user in range(50_000)}
    assert len(described(holding(large))) < 20_000


def test_a_changed_loss_is_known_by_its_code_and_what_it_names():
    def facts(*lines):
        space = {"__name__": "mine"}
        exec("\n".join(["RATE = 0.1", "def scale(x): return x * RATE", *lines]), space)
        return {"loss": loss_facts(space["loss"])}

    body = " return scale(x) * 2"

    def differ(*lines):
        return "loss" in differences(facts("def loss(x):", " 'Doubles.'", body), facts(*lines),
                                     ["loss"])  # fmt: skip

    assert not differ("# of two", "def loss(x):", " 'Other words.'", body)
    assert differ("def loss(x):", " 'Doubles.'", " return scale(x) * 3")
    assert differ("RATE = 0.2", "def loss(x):", " 'Doubles.'", body)
    assert differ("def scale(x): return x", "def loss(x):", " 'Doubles.'", body)


def test_settings_that_make_other_steps_are_said(finished, tmp_path, capfd):
    run = copied(finished, tmp_path)
    go_on(run, steps=4, gradient_accumulation_steps=2, progress="lines")
    assert "settings: gradient_accumulation_steps was 1, is 2" in capfd.readouterr().err


def test_another_rate_is_said_and_taken(finished, tmp_path, capfd):
    run = copied(finished, tmp_path)
    made, _ = go_on(run, optimizer=create_optimizer(1e-3), progress="lines")
    assert "learning_rate: its highest was 0.01, is 0.001" in capfd.readouterr().err
    assert made.history[-1]["learning_rate"] == pytest.approx(1e-3)


def test_parameters_are_thawed_and_frozen_in_the_same_directory(tmp_path):
    frozen = {"frozen_params": ["Dense_0"], "optimizer": CREATED}
    made = trainer(tmp_path, frozen_dtype="bfloat16", **frozen)
    state = made.train(begin(made), batches(), num_steps=3)
    kept = np.asarray(state.params["Dense_0"]["kernel"])
    with pytest.raises(ValueError, match=r"trained now: Dense_0/bias.*--allow-change frozen"):
        go_on(tmp_path)
    made, thawed = go_on(tmp_path, allow_changes=("frozen",), steps=4)
    assert thawed.params["Dense_0"]["kernel"].dtype == np.float32
    assert not np.array_equal(thawed.params["Dense_0"]["kernel"], kept.astype(np.float32))
    moment = thawed.opt_state["adam"].mu
    assert np.count_nonzero(moment["Dense_1"]["kernel"])
    assert np.count_nonzero(moment["Dense_0"]["kernel"])
    _, state = go_on(tmp_path, allow_changes=("frozen",), frozen_params=["Dense_0"], steps=6)
    assert np.array_equal(state.params["Dense_0"]["kernel"], thawed.params["Dense_0"]["kernel"])


def test_another_dtype_of_what_is_frozen_is_refused_with_its_flag(tmp_path):
    frozen = {"frozen_params": ["Dense_0"], "optimizer": CREATED}
    made = trainer(tmp_path, **frozen)
    made.train(begin(made), batches(), num_steps=2)
    half = {**frozen, "frozen_dtype": "bfloat16"}
    with pytest.raises(ValueError, match=r"--allow-change model: .*\n  params/Dense_0.*bfloat16"):
        go_on(tmp_path, **half)
    _, state = go_on(tmp_path, allow_changes=("model",), **half)
    assert state.params["Dense_0"]["kernel"].dtype == "bfloat16"


def test_the_rate_goes_on_where_an_optimizer_took_fewer_updates_than_steps(tmp_path):
    falling = optax.linear_schedule(1e-2, 0.0, 20)
    several = optax.MultiSteps(optax.adam(falling), 2)
    made = trainer(tmp_path, optimizer=several, learning_rate=falling)
    made.train(begin(made), batches(), num_steps=4)
    plain = {"optimizer": optax.adam(falling), "learning_rate": falling}
    made, _ = go_on(tmp_path, allow_changes=("optimizer",), **plain)
    assert made.history[-1]["learning_rate"] == pytest.approx(falling(2))


def test_another_clustering_is_refused_wherever_the_checkpoint_is_read(tmp_path):
    arrays = next_items(np.random.default_rng(0).integers(0, 12, (16, 5)))
    optimizer = optax.sgd(-2.0)  # it gets worse

    def made(clusters, **options):
        model = SimpleEfficientIDSModel(
            num_items=12, item_embedding_dim=4, model_dims=4, num_heads=1, num_layers=1,
            clustering_info=ClusteringInfo.from_assignments(clusters),
        )  # fmt: skip
        found = trainer(
            tmp_path, network=model, optimizer=optimizer, loss_fn=None, tensorboard=False, **options
        )
        given = numbers_of(model)
        return found, found.create_train_state(jax.random.key(0), arrays, params=given)

    how = {"keep_best": "eval_loss", "eval_every": 1, "save_every": 1}
    one, state = made(np.arange(12) // 3, **how)
    one.train(state, ShuffledBatches(arrays, 8), [arrays], num_steps=2)
    measured = one.history[-1]["eval_loss"]
    other, state = made(np.arange(12) % 4)
    with pytest.raises(RunMismatch, match=r"clustering: .* digest .*--allow-change clustering"):
        other.restore(state)
    for steps in (2, 4):  # nothing to do any more, and something
        with pytest.raises(RunMismatch, match="clustering"):
            other.train(state, ShuffledBatches(arrays, 8), num_steps=steps)
    equal, state = made(np.arange(12) // 3)  # other tables, of the same values
    equal.export(equal.restore(state), tmp_path / "equal")
    assert training_of(tmp_path / "equal")["metrics"]["eval_loss"] == measured
    # What was measured with the other clustering is not the allowed one's.
    allowed, state = made(np.arange(12) % 4, allow_changes=("clustering",), **how)
    restored = allowed.restore(state)
    assert int(restored.step) == 2
    allowed.export(restored, tmp_path / "allowed")
    assert "metrics" not in training_of(tmp_path / "allowed")
    allowed.train(state, ShuffledBatches(arrays, 8), [arrays], num_steps=3)
    assert allowed.history[-1]["eval_loss"] > measured
    assert allowed.best_step() == 3


def test_a_checkpoint_of_an_older_release_goes_on_and_says_so(finished, tmp_path, caplog):
    """Its `run` has no fingerprint, facts or sums, and its place is counted in batches."""
    run = copied(finished, tmp_path)
    place = run / "3" / "run" / "metadata"
    stored = json.loads(place.read_text())
    for name in ("fingerprint", "schedule_steps", "sums", "sum"):
        del stored[name]
    for state in stored["data"]:
        del state["facts"], state["iterator"]["rows"]
    place.write_text(json.dumps(stored))
    whole = trainer(optimizer=CREATED)
    want = whole.train(begin(whole), batches(), num_steps=5)
    assert same(go_on(run)[1], want)
    assert "clustering, catalogue, model, frozen, optimizer, schedule, loss, rows" in caplog.text
    assert "cannot be checked" in caplog.text


def test_a_state_that_was_restored_by_hand_goes_on_at_its_place(finished, tmp_path):
    run = copied(finished, tmp_path)
    whole = trainer(optimizer=CREATED)
    want = whole.train(begin(whole), batches(), num_steps=5)
    made = trainer(run, optimizer=CREATED)
    assert same(made.train(made.restore(begin(made)), batches(), num_steps=5), want)


def test_a_finished_directory_says_what_has_no_effect(finished, capfd):
    made = trainer(finished, optimizer=create_optimizer(1e-3), progress="lines")
    state = made.create_train_state(jax.random.key(7), next(iter(batches())))
    assert int(made.train(state, batches(), num_steps=3).step) == 3
    (line,) = capfd.readouterr().err.splitlines()
    for part in ("step 3 of 3 is reached already", "learning_rate: its highest was 0.01", "seed"):
        assert part in line


def test_names_that_can_be_allowed_are_known():
    with pytest.raises(ValueError, match="did you mean batch_size"):
        trainer(allow_changes=("batch_sise",))


def test_items_of_other_ids_are_another_catalogue():
    def facts(*ids):
        made = trainer()
        return run_facts(made.model, made.optimizer, None, begin(made), ItemNames(ids, ids))

    then, now = facts("a", "b"), facts("b", "a")
    assert differences(then, facts("a", "b"), ["catalogue"]) == {}
    assert differences(facts("a", None), now, ["catalogue"]) == {}  # of an earlier release
    found = differences(then, now, ["catalogue"])["catalogue"]
    assert "catalogue: the checkpoint has items with the ids of digest" in found


def test_another_catalogue_goes_on_where_that_is_allowed(tmp_path):
    def run(ids, steps, **options):
        made = trainer(tmp_path, items=ItemNames(ids, ids), **options)
        return made.train(begin(made), batches(), num_steps=steps)

    run(("a", "b"), 2)
    with pytest.raises(RunMismatch, match=r"catalogue: .*--allow-change catalogue"):
        run(("b", "a"), 3)
    whole = trainer()
    want = whole.train(begin(whole), batches(), num_steps=3)
    assert same(run(("b", "a"), 3, allow_changes=("catalogue",)), want)
    assert int(run(("b", "a"), 4).step) == 4  # and is the catalogue from then on


def test_descriptions_hold_no_addresses():
    made = described(optax.chain(optax.clip(1.0), optax.adam(lambda step: 0.1 / step)).update)
    assert "0x" not in json.dumps(made)
    assert made == described(
        optax.chain(optax.clip(1.0), optax.adam(lambda step: 0.1 / step)).update
    )


def test_what_is_saved_can_be_read_alone(finished):
    checkpoints = Checkpoints(finished, read_only=True)
    run = checkpoints.run_of()
    checkpoints.close()
    assert run["data"][0]["facts"]["batch_size"] == {"rows": BATCH}
    assert {"model", "optimizer", "frozen", "schedule"} <= run["fingerprint"].keys()
