"""Plans, reports and checkpoints as text."""

from collections.abc import Callable
from pathlib import Path

from converters import PlanOptions, open_checkpoint
from converters.commands.show import checkpoint_json, checkpoint_text, plan_text
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
    assert any("changes activations and logits: activation=silu," in line for line in lines)


def test_each_setting_is_shown_with_its_origin(recording: Callable[[str], Path]):
    about = checkpoint_json(open_checkpoint(recording("Llama_v11orbaxnames") / "checkpoint"))
    origins = about["origins"]["model"]
    assert (origins["num_layers"], origins["rotary.pairing"]) == ("tree", "assumed")
    assert about["assumed"]["forward"]["rotary"] == {"pairing": "half_split"}
    lines = checkpoint_text(about).splitlines()
    assert "  num_layers = 2 (tree)" in lines
    assert "  rotary.pairing = half_split (assumed)" in lines
    assert any("rotary.pairing=half_split, " in line for line in lines)


def test_nothing_of_a_job_that_has_its_dump_is_assumed(recording: Callable[[str], Path]):
    about = checkpoint_json(open_checkpoint(recording("LlamaRepeat_gda") / "checkpoint"))
    assert set(about["origins"]["model"].values()) == {"tree", "dump"}
    assert about["assumed"] == {}
    assert "  rotary.pairing = half_split (dump)" in checkpoint_text(about).splitlines()


def test_a_recognised_experiment_is_shown_before_a_conversion(recording: Callable[[str], Path]):
    text = checkpoint_text(checkpoint_json(open_checkpoint(recording("SaxLlama7B") / "checkpoint")))
    assert "note: recognised as LLaMA7BFP16, LLaMA13B, LLaMA33B or LLaMA65B" in text
    origin = "experiment LLaMA7BFP16, LLaMA13B, LLaMA33B or LLaMA65B"
    assert f"  rotary.pairing = interleaved ({origin})" in text


def test_checkpoints_without_a_known_configuration_are_shown(recording: Callable[[str], Path]):
    checkpoint = open_checkpoint(recording("BatchNormNonTrainable_ocdbt") / "checkpoint")
    about = checkpoint_json(checkpoint)
    assert (about["family"], about["config"]) == ("generic", None)
    assert about["bytes"] == sum(leaf["bytes"] for leaf in about["leaves"])
