"""The decoder's table: complete, without duplicates, and correct about each layer's place."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.arrays.lazy import Array, Source
from converters.arrays.leaf import whole
from converters.errors import MappingError
from converters.rules.apply import apply_rules
from converters.rules.language import check_rules
from converters.rules.transformer_lm import (
    FORMS,
    GSHARD,
    LAYER,
    QUANTIZED,
    TOP,
    LayerForm,
    extra_axes,
    has_nhd_post,
    has_parallel_norms,
    layer_form,
    layers_differ,
    rules,
)
from tests.leaves import MemoryLeaf, own_readers, values_of
from tests.paths import RECORDINGS

PARAMS = "mdl_vars/params/"
OTHER_MODELS = ("BatchNormNonTrainable_ocdbt", "QuantInt8Linear_gda")  # not language models
CASES = sorted({p.name.removesuffix(".tar.xz") for p in (RECORDINGS / "paxml").iterdir()})

STAGES, REPEATS, BLOCK = 3, 2, 2
NAMES = {  # one of each kind: source, target
    "self_attention/combined_qkv/w": "attention/qkv/kernel",
    "ff_layer/layer_norm/scale": "mlp_norm/scale",
    "ff_layer/gate": "moe/router/kernel",
}
SHAPES = {
    "self_attention/combined_qkv/w": (3, 4, 2, 2),
    "ff_layer/layer_norm/scale": (4,),
    "ff_layer/gate": (4, 5),
}


def layer(number: int, name: str) -> np.ndarray:
    """Values of a parameter in one layer, different from those of all other layers."""
    return values_of(SHAPES[name], seed=number)


def stacked(numbers: list, name: str) -> np.ndarray:
    """Stack layers by their numbers, which are nested as the axes are."""
    return np.stack([stacked(n, name) if isinstance(n, list) else layer(n, name) for n in numbers])


def stored(form: str) -> tuple[dict[str, np.ndarray], int]:
    """A tree as Praxis stores it in one form, and the number of its layers."""
    top = "lm/transformer/"
    tree: dict[str, np.ndarray] = {}
    for name in NAMES:
        if form == "separate":
            tree |= {f"{top}x_layers_{i}/{name}": layer(i, name) for i in range(12)}
        elif form == "repeat":
            tree[f"{top}repeat/sub/x_layers_0/{name}"] = stacked(list(range(5)), name)
        elif form == "blocks":
            tree |= {
                f"{top}repeat/sub/x_layers_{j}/{name}": stacked(
                    [r * BLOCK + j for r in range(REPEATS)], name
                )
                for j in range(BLOCK)
            }
        elif form == "pipeline":
            tree |= {
                f"{top}pipeline/body/x_layers_{j}/{name}": stacked(
                    [s * BLOCK + j for s in range(STAGES)], name
                )
                for j in range(BLOCK)
            }
        elif form == "pipelined repeat":
            tree[f"{top}pipeline/body/repeat/sub/x_layers_0/{name}"] = stacked(
                [[s * REPEATS + r for r in range(REPEATS)] for s in range(STAGES)], name
            )
        else:
            tree |= {
                f"{top}pipeline/body/repeat/sub/x_layers_{j}/{name}": stacked(
                    [
                        [(s * REPEATS + r) * BLOCK + j for r in range(REPEATS)]
                        for s in range(STAGES)
                    ],
                    name,
                )
                for j in range(BLOCK)
            }
    counts = {
        "separate": 12,
        "repeat": 5,
        "blocks": REPEATS * BLOCK,
        "pipeline": STAGES * BLOCK,
        "pipelined repeat": STAGES * REPEATS,
        "pipelined blocks": STAGES * REPEATS * BLOCK,
    }
    return tree, counts[form]


def mapped(tree: dict[str, np.ndarray], scan: bool | None) -> dict[str, np.ndarray]:
    arrays: dict[str, Array] = {p: Source(MemoryLeaf(v, v.shape, p)) for p, v in tree.items()}
    form = layer_form(arrays)
    if form is not None:
        shapes = {path: values.shape for path, values in tree.items()}
        form = replace(form, extra_axes=extra_axes(form, shapes))
    found = apply_rules(arrays, rules(form, scan))
    return {m.target: m.array.read(whole(m.array.shape), own_readers) for m in found.leaves}


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(found) == set(wanted)
    for path, values in wanted.items():
        assert np.array_equal(found[path], values), path


@pytest.mark.parametrize("form", sorted({name for name, _ in FORMS}))
def test_layers_one_by_one_are_in_the_order_of_the_model(form: str):
    tree, count = stored(form)
    assert_equal(
        mapped(tree, False),
        {
            f"layers_{i}/{target}": layer(i, source)
            for i in range(count)
            for source, target in NAMES.items()
        },
    )


@pytest.mark.parametrize("form", sorted({name for name, _ in FORMS}))
def test_stacked_layers_are_in_the_order_of_the_model(form: str):
    tree, count = stored(form)
    per_block = BLOCK if form.endswith("blocks") else 1
    wanted = {
        (f"layers/block_{j}/{target}" if per_block > 1 else f"layers/{target}"): stacked(
            list(range(j, count, per_block)), source
        )
        for j in range(per_block)
        for source, target in NAMES.items()
    }
    assert_equal(mapped(tree, True), wanted)
    if form != "separate":
        assert_equal(mapped(tree, None), wanted)


@pytest.mark.parametrize("scan", [True, False])
def test_repeats_of_a_circular_pipeline_come_before_its_stages(scan: bool):
    """Praxis runs all stages once, then all of them with the next repeat's layers."""
    tree = {
        f"lm/transformer/pipeline/body/x_layers_{j}/{name}": stacked(
            [[(r * STAGES + s) * BLOCK + j for s in range(STAGES)] for r in range(REPEATS)], name
        )
        for name in NAMES
        for j in range(BLOCK)
    }
    count = REPEATS * STAGES * BLOCK
    found = mapped(tree, scan)
    if scan:
        assert_equal(
            found,
            {f"layers/{to}": stacked(list(range(count)), name) for name, to in NAMES.items()},
        )
    else:
        assert_equal(
            found,
            {
                f"layers_{i}/{to}": layer(i, name)
                for i in range(count)
                for name, to in NAMES.items()
            },
        )


@pytest.mark.parametrize("form", sorted({name for name, _ in FORMS}))
def test_plain_forms_have_no_axes_more(form: str):
    tree, _ = stored(form)
    assert extra_axes(layer_form(tree), {path: v.shape for path, v in tree.items()}) == 0


def test_separate_layers_stay_separate():
    tree, _ = stored("separate")
    assert_equal(mapped(tree, None), mapped(tree, False))


@pytest.mark.parametrize(
    ("form", "per_block"),
    [("separate", 1), ("repeat", 1), ("blocks", BLOCK), ("pipeline", BLOCK),
     ("pipelined repeat", 1), ("pipelined blocks", BLOCK)],
)  # fmt: skip
def test_the_form_is_told_by_the_names(form: str, per_block: int):
    assert layer_form(stored(form)[0]) == LayerForm(form, per_block)


def test_every_form_is_both_stacked_and_separate():
    names = sorted({name for name, _ in FORMS})
    assert set(FORMS) == {(name, scanned) for name in names for scanned in (True, False)}


def test_no_layers():
    assert layer_form(["lm/final_ln/scale", "x_layers_0/w"]) is None
    assert {rule.target for rule in rules(None)} >= {"embedder/embedding", "lm_head/kernel"}


def test_layers_in_several_places():
    paths = ["lm/transformer/x_layers_0/a", "lm/transformer/repeat/sub/x_layers_0/a"]
    with pytest.raises(
        MappingError, match=r"several places: transformer/, transformer/repeat/sub/"
    ):
        layer_form(paths)


@pytest.mark.parametrize("table", [TOP, LAYER])
def test_each_line_has_its_own_source_and_target(table: tuple):
    assert len({rule.source for rule in table}) == len(table)
    assert len({rule.target for rule in table}) == len(table)


@pytest.mark.parametrize("name", sorted({name for name, _ in FORMS}))
@pytest.mark.parametrize("scanned", [True, False])
def test_each_table_passes_the_check(name: str, scanned: bool):
    table = rules(LayerForm(name, BLOCK), scanned)
    check_rules(table)
    assert len(set(table)) == len(table)
    assert not any(rule.required for rule in table)


def test_two_norms_of_a_layer_whose_feed_forward_has_none():
    layer = "lm/transformer/x_layers_0/"
    paths = [f"{layer}{name}_layer_norm/scale" for name in ("pre", "post")]
    assert has_parallel_norms(paths)
    assert not has_parallel_norms([*paths, f"{layer}ff_layer/pre_layer_norm/scale"])
    assert not has_parallel_norms([f"{layer}layer_norm/scale"])
    table = rules(LayerForm("separate", 1), parallel=True)
    values = [values_of((4,), seed=seed) for seed in range(2)]
    sources = {p: Source(MemoryLeaf(v, v.shape, p)) for p, v in zip(paths, values, strict=True)}
    found = {leaf.target: leaf.array for leaf in apply_rules(sources, table).leaves}
    assert list(found) == ["layers_0/attention_norm/scale", "layers_0/mlp_norm/scale"]


POST = {  # [N, H, D] with axes of layers before: source -> their sizes
    ("separate", 0): ("transformer/x_layers_0/", ()),
    ("repeat", 0): ("transformer/repeat/sub/x_layers_0/", (3,)),
    ("pipeline", 0): ("transformer/pipeline/body/x_layers_0/", (3,)),
    ("pipelined repeat", 0): ("transformer/pipeline/body/repeat/sub/x_layers_0/", (3, 2)),
    ("repeat", 1): ("transformer/repeat/sub/x_layers_0/", (3, 2)),  # over two axes
}


@pytest.mark.parametrize(("form", "extra"), POST)
@pytest.mark.parametrize("scanned", [True, False])
def test_output_projections_are_turned_in_every_form(form: str, extra: int, scanned: bool):
    place, lead = POST[form, extra]
    source, values = f"lm/{place}self_attention/post/w", values_of((*lead, 2, 5, 4))
    table = rules(LayerForm(form, 1, extra), scanned, nhd_post=True)
    tree = apply_rules({source: Source(MemoryLeaf(values, values.shape, source))}, table)
    made = [leaf.array.read(whole(leaf.array.shape), own_readers) for leaf in tree.leaves]
    found = np.concatenate([array.reshape(-1, 4, 2, 5) for array in made])
    assert np.array_equal(found, np.moveaxis(values, -1, -3).reshape(-1, 4, 2, 5))


@pytest.mark.parametrize(
    ("query", "post", "said", "nhd"),
    [
        ((16, 2, 6), (16, 2, 6), None, False),
        ((16, 2, 6), (2, 6, 16), None, True),
        ((16, 2, 6), (2, 6, 16), False, True),  # shapes cannot be overruled
        ((3, 16, 2, 6), (3, 2, 6, 16), None, True),  # repeated
        ((4, 4, 4), (4, 4, 4), None, False),
        ((4, 4, 4), (4, 4, 4), True, True),
    ],
)
def test_which_axis_of_the_output_projection_is_the_width(
    query: tuple, post: tuple, said: bool | None, nhd: bool
):
    layer = "lm/transformer/x_layers_0/self_attention/"
    assert has_nhd_post({f"{layer}query/w": query, f"{layer}post/w": post}, said) == nhd
    qkv = (*query[:-3], 3, *query[-3:])
    assert has_nhd_post({f"{layer}combined_qkv/w": qkv, f"{layer}post/w": post}, said) == nhd


def test_quantized_weights_keep_their_scales_beside_them():
    names = {rule.source: rule.target for rule in rules(LayerForm("separate", 1))}
    weights = [s for s in names if s.endswith("/w") and s != f"lm/{GSHARD.source}"]
    assert weights
    for source in weights:
        for ending, to in QUANTIZED:
            assert names[source + ending] == names[source] + to


def recorded(case: Path) -> dict[str, Array]:
    """Parameters with the names and shapes of a recording; all values are zero."""
    arrays: dict[str, Array] = {}
    for path, leaf in json.loads((case / "manifest.json").read_text())["leaves"].items():
        if path.startswith(PARAMS):
            values = np.broadcast_to(np.float32(0), leaf["shape"])
            arrays[path.removeprefix(PARAMS)] = Source(MemoryLeaf(values, values.shape, path))
    return arrays


@pytest.mark.parametrize("name", [name for name in CASES if name not in OTHER_MODELS])
@pytest.mark.parametrize("scan", [None, True, False])
def test_every_recorded_language_model_has_a_place_for_each_leaf(
    name: str, scan: bool | None, recording: Callable[[str], Path]
):
    arrays = recorded(recording(name))
    if (name, scan) == ("MoeGpt_gda", True):  # experts in every other layer
        with pytest.raises(MappingError, match="layers/moe/up/kernel: no source for i = 0"):
            apply_rules(arrays, rules(layer_form(arrays), scan))
        return
    found = apply_rules(arrays, rules(layer_form(arrays), scan))
    assert found.ignored == ()
    assert sum(leaf.array.nbytes for leaf in found.leaves) == sum(a.nbytes for a in arrays.values())
    assert "lm_head/kernel" in {leaf.target for leaf in found.leaves}


def test_a_head_with_a_row_a_word_is_turned():
    """NClassMajorSharedEmbeddingSoftmax: `softmax/w` is [V, D], with one scale per word."""

    def leaf(shape: tuple[int, ...]) -> Array:
        return Source(MemoryLeaf(values_of(shape), shape))

    table = rules(None, by_word=True)
    sources = {
        "lm/softmax/w": leaf((5, 3)), "lm/softmax/bias/b": leaf((5,)),
        "lm/softmax/w_quantized_scale": leaf((5,)), "lm/final_ln/scale": leaf((3,)),
    }  # fmt: skip
    found = {leaf.target: leaf.array.shape for leaf in apply_rules(sources, table).leaves}
    assert found == {
        "lm_head/kernel": (3, 5), "lm_head/bias": (5,), "lm_head/kernel_scale": (5,),
        "final_norm/scale": (3,),
    }  # fmt: skip


def test_layers_differ_by_their_leaves_and_shapes():
    place = "lm/transformer/pipeline/body/x_layers_{}/ff_layer/ffn_layer1/linear/w"
    alike = {place.format(number): (2, 16, 24) for number in (0, 1)}
    assert not layers_differ(alike)
    assert layers_differ(alike | {place.format(1): (2, 16, 20)})
    gate = place.format(1).replace("ffn_layer1", "ffn_layer1_gate")
    assert layers_differ(alike | {gate: (2, 16, 24)})
