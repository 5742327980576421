"""The table of HuggingFace's model types against the installed transformers, and against ours."""

import re

import pytest

from efficientids_flax.backbone.presets import UnsupportedConfigError, model_type
from tests.paths import ROOT

pytest.importorskip("transformers")

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

PAGE = ROOT / "docs/reference/huggingface.md"


def table() -> list[tuple[str, str, str]]:
    """(model type, whether it loads, what is said of it) of each type of the page."""
    rows = re.findall(r"^\| (`.*?`) \| (yes|partly|no) \| (.*?) ?\|$", PAGE.read_text(), re.M)
    return [(kind, loads, text) for kinds, loads, text in rows for kind in kinds.split()]


def supported(kind: str) -> bool:
    try:
        model_type({"model_type": kind})
    except UnsupportedConfigError:
        return False
    return True


def test_every_model_type_stands_there_once() -> None:
    kinds = [kind.strip("`") for kind, _, _ in table()]
    assert len(kinds) == len(set(kinds))
    theirs = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert theirs - set(kinds) == set(), "model types that the page does not have"
    others = {kind for kind in set(kinds) - theirs if not supported(kind)}
    assert others == set(), "model types that transformers does not have"


def test_what_is_said_to_load_does() -> None:
    said = {kind.strip("`"): loads != "no" for kind, loads, _ in table()}
    assert {kind: supported(kind) for kind in said} == said
    assert all(text for _, loads, text in table() if loads != "yes")
