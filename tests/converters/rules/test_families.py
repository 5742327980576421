"""Which table a tree gets."""

import pytest

from converters.arrays.lazy import Array, Source
from converters.errors import MappingError
from converters.rules.families import GENERIC, Table, detect, table_for
from converters.rules.heads import Said
from converters.rules.language import Rule
from tests.leaves import MemoryLeaf, values_of

LAYER = "lm/transformer/x_layers_{}/self_attention/query/w"
ITEMS = "lm/softmax/logits_ffn_item/linear/w"


def arrays(*paths: str, dtype: str = "float32") -> dict[str, Array]:
    return {path: Source(MemoryLeaf(values_of((2, 3), dtype), (2, 3), path)) for path in paths}


@pytest.mark.parametrize(
    ("paths", "family"),
    [
        ((LAYER.format(0), "lm/final_ln/scale"), "transformer_lm"),
        ((LAYER.format(0), ITEMS), "efficientids"),
        ((ITEMS,), "generic"),
        (("linear/w", "bias/b"), "generic"),
        (("net/lm/transformer/x",), "generic"),
        ((), "generic"),
    ],
)
def test_the_names_tell_the_family(paths: tuple[str, ...], family: str):
    assert detect(arrays(*paths)) == family


def test_a_family_that_fits():
    table, notes = table_for(arrays(LAYER.format(0)), None, None)
    assert (table.family, notes) == ("transformer_lm", [])
    (leaf,) = table.apply(arrays(LAYER.format(0))).leaves
    assert leaf.target == "layers_0/attention/query/kernel"


def test_a_detected_family_that_does_not_fit_gives_way_with_a_note():
    table, notes = table_for(arrays(LAYER.format(0), "lm/unknown"), None, None)
    assert (table.family, table.rules) == ("generic", GENERIC)
    (note,) = notes
    assert "looks like family transformer_lm" in note
    assert "lm/unknown: no rule takes this leaf" in note


@pytest.mark.parametrize(("family", "scan"), [("transformer_lm", None), (None, True)])
def test_what_was_asked_for_and_does_not_fit_is_an_error(family: str | None, scan: bool | None):
    with pytest.raises(MappingError, match="lm/unknown: no rule takes this leaf"):
        table_for(arrays(LAYER.format(0), "lm/unknown"), family, scan)


def test_layers_in_two_places_are_an_error():
    both = arrays(LAYER.format(0), "lm/transformer/repeat/sub/x_layers_0/layer_norm/scale")
    with pytest.raises(MappingError, match="layers lie in several places"):
        table_for(both, "transformer_lm", None)


def test_an_unknown_family():
    with pytest.raises(MappingError, match="unknown family 'gpt'; known are transformer_lm"):
        table_for(arrays("a"), "gpt", None)


@pytest.mark.parametrize("scan", [True, False])
def test_generic_has_no_layers_to_scan(scan: bool):
    with pytest.raises(MappingError, match="need a family with layers"):
        table_for(arrays("a"), None, scan)


def test_a_part_of_a_tree_needs_no_required_rule_and_keeps_its_dtype():
    table = Table("custom", (Rule("a", "x", "transpose 1 0; cast bfloat16", required=True),
                             Rule("b", "y", "cast bfloat16", required=True)))  # fmt: skip
    assert [leaf.array.dtype.name for leaf in table.apply(arrays("x", "y")).leaves] == [
        "bfloat16",
        "bfloat16",
    ]
    (leaf,) = table.apply_part(arrays("x"))
    assert (leaf.target, leaf.rule.op) == ("a", "transpose 1 0")
    assert (leaf.array.shape, leaf.array.dtype.name) == ((3, 2), "float32")
    with pytest.raises(MappingError, match=r"b <- y .*no leaf matches"):
        table.apply(arrays("x"))


@pytest.mark.parametrize(("templates", "first"), [(1, "layers/"), (2, "layers_{i}/")])
def test_layers_of_a_pipeline_are_stacked_where_they_are_alike(templates: int, first: str):
    place = "lm/transformer/pipeline/body/x_layers_{}/layer_norm/scale"
    leaves = arrays(place.format(0), place.format(1))
    table, notes = table_for(leaves, None, None, said=Said(templates=templates))
    assert (table.family, notes) == ("transformer_lm", [])
    assert any(rule.target.startswith(f"{first}attention_norm/") for rule in table.rules)
