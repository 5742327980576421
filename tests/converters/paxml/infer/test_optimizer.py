import pytest

from converters.errors import MappingError, UnclearModelError
from converters.paxml.infer.facts import Published
from converters.paxml.infer.hparams import Symbol
from converters.paxml.infer.optimizer import infer_optimizer
from efficientids_flax.config import OptimizerConfig, ScheduleConfig
from tests.converters.paxml.recorded_jobs import JOBS, LANGUAGE_MODELS, RECOMMENDERS, dump

RAMP = ScheduleConfig(
    "linear_rampup_exponential_decay",
    {"warmup_steps": 2, "decay_start": 3, "decay_end": 100, "min_ratio": 0.1, "max": 1.0},
)
ADAM = OptimizerConfig(
    "adam",
    learning_rate=0.01,
    schedule=RAMP,
    beta1=0.9,
    beta2=0.99,
    epsilon=1e-6,
    clip_threshold=1.0,
    weight_decay=0.001,
    clip_gradient_norm_to_value=5.0,
)
EXPECTED = {
    "Llama_gda": ADAM.to_dict(),
    "LlamaRepeat_paxml100": ADAM.to_dict(),
    "LlamaRepeatEma_gda": ADAM.to_dict() | {"ema_decay": 0.9},
    "LlamaSgdm_ocdbt": OptimizerConfig(
        "sgd", learning_rate=0.01, schedule=ScheduleConfig(), momentum=0.9
    ).to_dict(),
    "LlamaAdafactor_gda": OptimizerConfig(
        "sharded_adafactor",
        learning_rate=0.01,
        schedule=RAMP,
        beta1=0.9,
        clip_threshold=1.0,
        weight_decay=0.001,
        clip_gradient_norm_to_value=5.0,
        decay_method="adam",
        decay_adam=0.99,
        decay_pow=0.0,
    ).to_dict(),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_recorded_optimizers(name):
    found, sources = infer_optimizer(dump(name))
    assert found is not None
    assert found.to_dict() == EXPECTED[name]
    assert sources["learning_rate"] == {"value": 0.01, "from": "dump"}
    # The dump has no such line: the learner has Praxis' default.
    assert sources["bprop_variable_exclusion"]["from"] == "dump"


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_every_recorded_job_has_one(name):
    found, _ = infer_optimizer(dump(name))
    assert found is not None
    assert found.learning_rate == 0.01


@pytest.mark.parametrize("name", RECOMMENDERS)
def test_recommenders(name):
    constants = JOBS[name]["experiment"]
    found, _ = infer_optimizer(dump(name))
    assert found is not None
    assert found.schedule == ScheduleConfig(
        "linear_rampup_cosine_decay",
        {
            "warmup_steps": constants["WARMUP_STEPS"],
            "decay_start": constants["WARMUP_STEPS"] + 1,
            "decay_end": constants["LEARNING_RATE_DECAY_END"],
            "min_ratio": 0.1,
            "max": 1.0,
        },
    )
    assert list(found.bprop_variable_exclusion) == constants["BPROP_VARIABLE_EXCLUSION"]
    assert found.weight_decay == constants["WEIGHT_DECAY"]
    assert found.beta1 == 0.9
    if name == "k_adam":
        assert (found.name, found.beta2, found.epsilon) == ("adam", 0.95, 1e-6)
        assert found.clip_gradient_norm_to_value == 0.5
    else:
        assert (found.name, found.decay_method, found.decay_adam) == (
            "sharded_adafactor", "adam", 0.999,
        )  # fmt: skip
        assert found.quantized_dtype == "int8"  # Praxis' default: these dumps lack it


def test_nothing_known():
    assert infer_optimizer() == (None, {})
    assert infer_optimizer({"model.lm_tpl.model_dims": 3}, {"num_heads": 4}) == (None, {})


def test_what_is_not_said_stays_unknown():
    found, sources = infer_optimizer(None, {"optimizer.beta1": "0.8"}, name="adam")
    assert found is not None
    assert (found.beta1, found.beta2, found.epsilon, found.schedule) == (0.8, None, None, None)
    assert sources["name"] == {"value": "adam", "from": "tree"}
    assert sources["beta1"] == {"value": 0.8, "from": "given"}
    assert sources["beta2"] == {"value": None, "from": "assumed"}


def test_states_without_averages_are_of_a_learner_that_has_none():
    for states, origin in ((["adam"], "tree"), (["adam", "ema"], "assumed"), ([], "assumed")):
        found, sources = infer_optimizer(name="adam", states=states)
        assert found is not None
        assert sources["ema_decay"] == {"value": 0.0, "from": origin}


def test_what_a_published_experiment_says_is_weaker_than_all_else():
    learner = {"name": "adam", "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8}
    published = Published("experiment X", {}, learner)
    found, sources = infer_optimizer(None, {"optimizer.beta1": 0.8}, "adam", published=published)
    assert found is not None
    assert (found.beta1, found.beta2) == (0.8, 0.95)
    assert (sources["beta1"]["from"], sources["beta2"]["from"]) == ("given", "experiment X")
    assert sources["learning_rate"]["from"] == "assumed"
    told, sources = infer_optimizer(dump("Llama_gda"), published=published)
    assert told is not None
    assert sources["beta2"] == {"value": 0.99, "from": "dump"}
    other, sources = infer_optimizer(name="sgd", published=published)  # the tree is of another
    assert other is not None
    assert "experiment X" not in {source["from"] for source in sources.values()}
    alone, sources = infer_optimizer(published=published)  # weights alone
    assert alone is not None
    assert sources["name"] == {"value": "adam", "from": "experiment X"}


def test_flags_over_the_dump():
    flags = {"optimizer.beta2": 0.5, "optimizer.schedule.parameters": '{"max": 2.0}'}
    found, sources = infer_optimizer(dump("Llama_gda"), flags)
    assert found is not None
    assert found.schedule == ScheduleConfig(RAMP.kind, {"max": 2.0})
    assert (found.beta1, found.beta2) == (0.9, 0.5)
    assert sources["beta2"]["from"] == "given"
    assert sources["schedule.kind"]["from"] == "dump"


def test_other_optimizers_are_named_and_not_guessed():
    values = {"train.learner.optimizer.cls": Symbol("praxis.optimizers", "Lion")}
    found, sources = infer_optimizer(values)
    assert found is None
    assert sources == {"name": {"value": "praxis.optimizers.Lion", "from": "dump"}}


def test_disagreement_about_the_optimizer():
    with pytest.raises(MappingError, match="the tree says 'sgd', the dump says 'adam'"):
        infer_optimizer(dump("Llama_gda"), name="sgd")


def test_unknown_and_invalid_flags():
    with pytest.raises(MappingError, match=r"--set optimizer\.beta_1: unknown key; did you mean"):
        infer_optimizer(dump("Llama_gda"), {"optimizer.beta_1": 0.9})
    with pytest.raises(MappingError, match=r"beta1: expected in \[0, 1\), found 9"):
        infer_optimizer(dump("Llama_gda"), {"optimizer.beta1": 9})


def test_learners_of_a_list_and_weight_decay_by_pattern():
    values = {}
    for path, value in dump("Llama_gda").items():
        for learner in (0, 1):
            values[path.replace("train.learner.", f"train.learner[{learner}].")] = value
    values["train.learner[1].optimizer.beta1"] = 0.5
    del values["train.learner[1].optimizer.weight_decay"]
    values["train.learner[1].optimizer.weight_decay..*bias.*"] = 0.25
    first, _ = infer_optimizer(values)
    second, sources = infer_optimizer(values, learner=1)
    assert first == ADAM
    assert second is not None
    assert (second.beta1, second.weight_decay_by_pattern) == (0.5, ((".*bias.*", 0.25),))
    assert sources["weight_decay_by_pattern"]["from"] == "dump"
    assert infer_optimizer(values, learner=2)[0] is None


def test_a_class_that_is_named_a_schedule():
    root = "train.learner.optimizer.lr_schedule"
    values = dump("Llama_gda") | {
        f"{root}.cls": Symbol("praxis.schedules", "ContinuousSchedule"), f"{root}.min": 0.5
    }  # fmt: skip
    found, _ = infer_optimizer(values)
    assert found is not None
    assert found.schedule == ScheduleConfig("continuous", {"min": 0.5})


def test_a_schedule_of_schedules_stays_unknown():
    values = dump("Llama_gda") | {
        "train.learner.optimizer.lr_schedule.cls": Symbol("praxis.schedules", "CycleSchedule")
    }
    found, _ = infer_optimizer(values)
    assert found is not None
    assert found.schedule is None


@pytest.mark.parametrize(
    ("name", "path", "off"),
    [
        ("k_adam", "clip_threshold", (0.0, -1.0)),
        ("k_adam", "weight_decay", (0.0, -1.0)),
        ("k_adam", "ema_decay", (0.0, -1.0)),
        ("i_llama", "clip_threshold", (-1.0,)),
        ("i_llama", "ema_decay", (0.0, -0.5)),
    ],
)
def test_numbers_that_praxis_uses_above_a_limit_alone(name, path, off):
    without = {"clip_threshold": None, "weight_decay": 0.0, "ema_decay": 0.0}
    for value in off:
        found, _ = infer_optimizer(dump(name) | {f"train.learner.optimizer.{path}": value})
        assert found is not None
        assert getattr(found, path) == without[path]


def test_a_dump_with_values_that_no_learner_takes():
    values = dump("k_adam") | {"train.learner.optimizer.beta1": 2.0}
    with pytest.raises(UnclearModelError, match=r"beta1: expected in \[0, 1\), found 2"):
        infer_optimizer(values)
