"""Which settings count as assumed: those that nothing told and that can change a number."""

from efficientids_flax.config import BackboneConfig
from efficientids_flax.settings import assumed, origin_of, origins_of_leaves

CONFIG = BackboneConfig(
    vocab_size=11, num_layers=2, model_dims=8, hidden_dims=6, num_heads=2, num_kv_heads=2,
    head_dim=4, norm_policy="primer_hybrid",
)  # fmt: skip


def test_origins_of_records_and_of_their_parts() -> None:
    origins = {"rotary": "given", "moe.gating": "dump", "moe.gated": "assumed", "norm": "tree"}
    assert origin_of(origins, "rotary.pairing") == "given"
    assert origin_of(origins, "moe") == "assumed"
    assert origin_of({"moe.gating": "dump", "moe.gated": "dump"}, "moe") == "dump"
    assert origin_of(origins, "norm") == "tree"
    assert origin_of(origins, "activation") == "assumed"


def test_assumed_are_those_that_nothing_told_and_that_can_be_otherwise() -> None:
    found = assumed(CONFIG, {"activation": "dump", "norm_epsilon": "given"})
    assert "activation" not in found
    assert "norm_epsilon" not in found
    assert found["norm_scale_plus_one"] is False
    assert "rotary" in found
    assert "norm_policy" not in found  # the other policies have other parameters
    assert not {"label_smoothing", "moe.gating"} & found.keys()
    assert "label_smoothing" in assumed(CONFIG, {}, "training")


def test_leaves_take_the_strongest_origin_of_their_own_or_of_their_record() -> None:
    values = {"norm": "rms_norm", "rotary": {"pairing": "half_split", "fraction": 1.0}, "moe": {}}
    weaker = {"rotary": "assumed", "norm": "tree"}
    found = origins_of_leaves(values, {"rotary.pairing": "found"}, weaker, unsaid="given")
    assert found == {
        "norm": "tree",
        "rotary.pairing": "found",
        "rotary.fraction": "assumed",
        "moe": "given",
    }
