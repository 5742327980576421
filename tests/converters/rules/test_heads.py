"""Merged heads are split by what other leaves show; every guess is noted."""

import pytest

from converters.errors import MappingError
from converters.rules.heads import Said, split_heads, with_heads

# D 12, N 3, H 6
LAYER = "lm/transformer/x_layers_0/"
ATTENTION = f"{LAYER}self_attention/"
NORM = {f"{LAYER}layer_norm/scale": (12,)}
MERGED = {
    **NORM,
    f"{ATTENTION}query/w": (12, 18),
    f"{ATTENTION}key/w": (12, 18),
    f"{ATTENTION}value/w": (12, 18),
    f"{ATTENTION}post/w": (18, 12),
}
BIAS = {f"{ATTENTION}relative_bias/wrb": (3, 32)}


def steps(shapes, said=Said()):  # noqa: B008 (a constant)
    return split_heads(shapes, said).steps


@pytest.mark.parametrize(
    ("leaf", "shape"),
    [
        ("relative_bias/wrb", (3, 32)),
        ("per_dim_scale/per_dim_scale", (6,)),
        ("layer_norm_q/scale", (6,)),
        ("u", (3, 6)),
    ],
)
def test_other_leaves_say_how_many_heads_there_are(leaf, shape):
    found = steps(MERGED | {ATTENTION + leaf: shape})
    assert found["self_attention/query/w"] == "split 1 3 6"
    assert found["self_attention/post/w"] == "split 0 3 6; transpose 2 0 1"


def test_the_dump_or_the_user_says_it_where_no_leaf_does():
    assert steps(MERGED, Said(num_heads=2))["self_attention/key/w"] == "split 1 2 9"
    with pytest.raises(MappingError, match=r"post/w \[18, 12\]: the heads are .* --set num_heads"):
        steps(MERGED)
    with pytest.raises(MappingError, match="no leaf says how many"):
        steps(MERGED, Said(num_heads=5))  # 18 is no multiple of it


def test_an_output_that_ends_with_the_heads():
    shapes = MERGED | BIAS | {f"{ATTENTION}post/w": (12, 18)}
    assert steps(shapes)["self_attention/post/w"] == "split 1 3 6"


@pytest.mark.parametrize(
    ("said", "head", "wanted", "guessed"),
    [
        (None, "logits_ffn/linear/w", "split 1 3 6", True),
        (None, "embedding/w", "split 0 3 6; transpose 2 0 1", True),  # glam.py has no other
        (True, "logits_ffn/linear/w", "split 0 3 6; transpose 2 0 1", False),
        (False, "embedding/w", "split 1 3 6", False),
    ],
)
def test_square_outputs_go_by_what_is_said(said, head, wanted, guessed):
    shapes = {
        f"{LAYER}layer_norm/scale": (18,),
        **{f"{ATTENTION}{name}/w": (18, 18) for name in ("query", "key", "value", "post")},
        **BIAS,
        f"lm/softmax/{head}": (40, 18),
    }
    found = split_heads(shapes, Said(nhd_post=said))
    assert found.steps["self_attention/post/w"] == wanted
    assert bool(found.guessed) is guessed


def test_fused_and_stacked_kernels():
    layer = "lm/transformer/repeat/sub/x_layers_1/"
    shapes = {
        f"{layer}layer_norm/scale": (4, 12),
        f"{layer}self_attention/combined_qkv/w": (4, 3, 12, 18),
        f"{layer}self_attention/combined_qkv/b": (4, 3, 18),
        f"{layer}self_attention/post/w": (4, 12, 3, 6),
    }
    found = split_heads(shapes, Said())
    assert found.leading == 1
    assert found.steps == {
        "self_attention/combined_qkv/w": "split 2 3 6",
        "self_attention/combined_qkv/b": "split 1 3 6",
    }
    wide = with_heads(shapes, Said())
    assert wide[f"{layer}self_attention/combined_qkv/w"] == (4, 3, 12, 3, 6)
    assert wide[f"{layer}self_attention/post/w"] == (4, 12, 3, 6)


def test_the_one_head_of_multi_query_attention_is_none_that_was_merged():
    shapes = {
        **NORM,
        f"{ATTENTION}query/w": (12, 3, 6),
        f"{ATTENTION}key/w": (12, 6),
        f"{ATTENTION}value/w": (12, 6),
        f"{ATTENTION}post/w": (12, 3, 6),
    }
    assert steps(shapes) == {}
    merged = shapes | {f"{ATTENTION}query/w": (12, 18), f"{ATTENTION}post/w": (12, 18)} | BIAS
    assert set(steps(merged)) == {"self_attention/query/w", "self_attention/post/w"}


def test_shapes_stay_as_they_are_where_nothing_tells():
    assert with_heads(MERGED, Said()) == MERGED
