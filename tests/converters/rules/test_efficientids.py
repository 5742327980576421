"""The recommender's table: it has a place for every recorded leaf, and a folder for the LM."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converters.arrays.lazy import Array, Source
from converters.rules import efficientids, transformer_lm
from converters.rules.apply import apply_rules
from converters.rules.language import check_rules
from converters.rules.transformer_lm import LayerForm, layer_form
from tests.leaves import MemoryLeaf
from tests.paths import RECORDINGS

PARAMS = "mdl_vars/params/"
NAMES = {place.name.removesuffix(".tar.xz") for place in (RECORDINGS / "efficientids").iterdir()}
CASES = sorted(NAMES - {"n_init_rules"})  # which describes jobs, not one checkpoint


def test_the_language_model_lies_in_a_folder_of_its_own():
    form = LayerForm("separate", 1)
    plain = {rule.source: rule.target for rule in transformer_lm.rules(form)}
    found = {rule.source: rule.target for rule in efficientids.rules(form)}
    assert {source: found[source] for source in plain} == {
        source: f"pretrained_lm/{target}" for source, target in plain.items()
    }
    rest = {found[source].partition("/")[0] for source in set(found) - set(plain)}
    assert rest == {
        "item_embedding",
        "cluster_embedding",
        "item_input_adapter",
        "item_output_adapter",
    }


@pytest.mark.parametrize("name", ["separate", "repeat", "blocks"])
@pytest.mark.parametrize("scanned", [True, False])
def test_the_table_has_no_doubles(name: str, scanned: bool):
    table = efficientids.rules(LayerForm(name, 2), scanned)
    check_rules(table)
    assert len({rule.source for rule in table}) == len(table)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("scan", [None, True, False])
def test_every_recorded_leaf_has_its_place(
    name: str, scan: bool | None, recording: Callable[[str], Path]
):
    file = recording(name) / "manifest.json"
    about = json.loads(file.read_text())["leaves"]
    arrays: dict[str, Array] = {}
    for path, leaf in about.items():
        if path.startswith(PARAMS):
            values = np.broadcast_to(np.float32(0), leaf["shape"])
            arrays[path.removeprefix(PARAMS)] = Source(MemoryLeaf(values, values.shape, path))
    found = apply_rules(arrays, efficientids.rules(layer_form(arrays), scan))
    assert found.ignored == ()
    assert "item_embedding/kernel" in {leaf.target for leaf in found.leaves}
    assert sum(leaf.array.nbytes for leaf in found.leaves) == sum(a.nbytes for a in arrays.values())
