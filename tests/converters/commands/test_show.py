"""Plans, reports and checkpoints as text."""

from collections.abc import Callable
from pathlib import Path

from converters import PlanOptions, open_checkpoint
from converters.commands.show import checkpoint_json, plan_text
from converters.plan.make import make_plan


def test_plan_lists_what_is_left_out(recording: Callable[[str], Path]):
    checkpoint = open_checkpoint(recording("QuantInt8Linear_gda") / "checkpoint")
    text = plan_text(make_plan(checkpoint, PlanOptions(optimizer="none")))
    assert "ignored: " not in text
    llama = open_checkpoint(recording("Llama_v11orbaxnames") / "checkpoint")
    lines = plan_text(make_plan(llama, PlanOptions(optimizer="none"))).splitlines()
    ignored = [line for line in lines if line.startswith("ignored: opt_states/")]
    assert len(ignored) == sum(path.startswith("opt_states/") for path in llama.leaves)
    assert all(line.endswith("(--no-optimizer)") for line in ignored)
    assert any(line.startswith("note: no model_params.txt") for line in lines)


def test_checkpoints_without_a_known_configuration_are_shown(recording: Callable[[str], Path]):
    checkpoint = open_checkpoint(recording("BatchNormNonTrainable_ocdbt") / "checkpoint")
    about = checkpoint_json(checkpoint)
    assert (about["family"], about["config"]) == ("generic", None)
    assert about["bytes"] == sum(leaf["bytes"] for leaf in about["leaves"])
