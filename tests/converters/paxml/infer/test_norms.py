"""Norms by place: which settings remain if they differ, and the effect of a flag for all."""

from typing import Any

import pytest

from converters.paxml.infer.norms import Chosen, settle_norms
from efficientids_flax.settings import ASSUMED, GIVEN

BASE: Chosen = {"norm": ("rms_norm", "dump"), "norm_bias": (False, "dump"),
                "norm_epsilon": (1e-6, "dump"), "norm_scale_plus_one": (False, "dump")}  # fmt: skip


def settled(base: Chosen, own: Chosen, prefix: str = "") -> dict[str, Any]:
    """The settings that remain below `norms`."""
    chosen = {prefix + key: found for key, found in (base | own).items()}
    settle_norms(chosen, prefix)
    assert {key.removeprefix(prefix) for key in chosen} >= base.keys()
    return {
        key.removeprefix(f"{prefix}norms."): value
        for key, value in chosen.items()
        if key.startswith(f"{prefix}norms.")
    }


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_only_differences_are_left(prefix: str):
    own: Chosen = {
        "norms.mlp.kind": ("layer_norm", "dump"),
        "norms.mlp.bias": (True, "tree"),
        "norms.mlp.epsilon": (1e-6, "dump"),
        "norms.mlp.scale_plus_one": (True, "dump"),
        "norms.final.kind": ("rms_norm", "dump"),
        "norms.final.scale_plus_one": (False, "dump"),
    }
    assert settled(BASE, own, prefix) == {
        "mlp.kind": ("layer_norm", "dump"),
        "mlp.bias": (True, "tree"),
        "mlp.scale_plus_one": (True, "dump"),
    }


def test_a_flag_for_all_norms_speaks_for_each_place():
    base = BASE | {"norm_epsilon": (1e-5, GIVEN)}
    own: Chosen = {"norms.mlp.epsilon": (1e-6, "dump"), "norms.final.epsilon": (1e-4, GIVEN)}
    assert settled(base, own) == {"final.epsilon": (1e-4, GIVEN)}


def test_a_flag_does_not_take_a_bias_away():
    base = BASE | {"norm": ("rms_norm", GIVEN)}
    own: Chosen = {"norms.mlp.kind": ("layer_norm", "tree"), "norms.mlp.bias": (True, "tree"),
                   "norms.final.kind": ("layer_norm", "dump")}  # fmt: skip
    left = settled(base, own)
    assert left["mlp.kind"] == ("layer_norm", "tree")
    assert "final.kind" not in left


@pytest.mark.parametrize(
    ("common", "kind", "plus_one"),
    [(False, "layer_norm", True), (True, "layer_norm", None), (True, "rms_norm", False)],
)
def test_a_scale_that_nothing_tells_is_that_of_the_class(
    common: bool, kind: str, plus_one: bool | None
):
    other = "rms_norm" if kind == "layer_norm" else "layer_norm"
    base = BASE | {"norm": (other, "tree"), "norm_scale_plus_one": (common, ASSUMED)}
    left = settled(base, {"norms.final.kind": (kind, "tree")})
    assert left.get("final.scale_plus_one") == (None if plus_one is None else (plus_one, ASSUMED))
