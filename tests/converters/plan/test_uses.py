"""The axes of quantized weights, by the layers of praxis/layers/quantization that use them."""

import pytest

from converters.plan.uses import Shape, Sizes, Use, use_of

INT8, INT32 = (1, 2), (8,)  # numbers that an integer may hold
LAYER = "lm/transformer/x_layers_0/"
TREE: dict[str, Shape] = {  # D 16, N 2, H 8, F 24
    f"{LAYER}layer_norm/scale": (16,),
    f"{LAYER}self_attention/query/w": (16, 2, 8),
    f"{LAYER}ff_layer/ffn_layer1/linear/w": (16, 24),
}
SQUARE: dict[str, Shape] = {  # D 8, N 8, H 8, F 8
    f"{LAYER}layer_norm/scale": (8,),
    f"{LAYER}self_attention/query/w": (8, 8, 8),
    f"{LAYER}ff_layer/ffn_layer1/linear/w": (8, 8),
}
REPEAT = "lm/transformer/repeat/sub/x_layers_0/"
STACKED: dict[str, Shape] = {
    path.replace(LAYER, REPEAT): (16, *shape) for path, shape in TREE.items()
}


def of(tree: dict[str, Shape], path: str, weight: Shape, scale: Shape, factors: Shape) -> Use:
    return use_of(path, weight, scale, Sizes(tree), factors)


@pytest.mark.parametrize(
    ("leaf", "weight", "scale", "factors", "use"),
    [
        ("ff_layer/ffn_layer1/linear/w", (16, 24), (24,), INT8, Use(1, 0, (1,))),
        ("ff_layer/ffn_layer1/linear/w", (8, 24), (24,), INT8, Use(2, 0, (1,))),
        ("ff_layer/ffn_layer1/linear/w", (2, 24), (24,), INT32, Use(8, 0, (1,))),
        ("ff_layer/ffn_layer2/linear/w", (24, 16), (16,), INT8, Use(1, 0, (1,))),
        ("ff_layer/ffn_layer2/linear/w", (12, 16), (16,), INT8, Use(2, 0, (1,))),
        ("self_attention/query/w", (8, 2, 8), (2, 8), INT8, Use(2, 0, (1, 2))),
        ("self_attention/key/w", (2, 8), (8,), INT32, Use(8, 0, (1,))),  # one head
        ("self_attention/key/w", (16, 1, 8), (8,), INT8, Use(1, 0, (2,))),  # scales are squeezed
        ("self_attention/combined_qkv/w", (3, 2, 2, 8), (3, 2, 8), INT32, Use(8, 1, (0, 2, 3))),
        ("self_attention/post/w", (16, 2, 8), (16,), INT8, Use(1, 0, (0,))),
        ("self_attention/post/w", (8, 2, 8), (16,), INT8, Use(2, 0, (0,))),
        ("self_attention/post/w", (2, 2, 8), (16,), INT32, Use(8, 0, (0,))),
        ("self_attention/post/w", (2, 8, 16), (16,), INT8, Use(1, 0, (2,))),  # [N, H, D]
        ("self_attention/post/w", (1, 8, 16), (16,), INT8, Use(2, 0, (2,))),
    ],
)  # fmt: skip
def test_a_layer(leaf: str, weight: Shape, scale: Shape, factors: Shape, use: Use):
    assert of(TREE, LAYER + leaf, weight, scale, factors) == use


@pytest.mark.parametrize(
    ("leaf", "weight", "scale", "use"),
    [
        ("ff_layer/ffn_layer1/linear/w", (8, 8), (8,), Use(1, 0, (1,))),
        ("self_attention/query/w", (8, 8, 8), (8, 8), Use(1, 0, (1, 2))),
        ("self_attention/post/w", (8, 8, 8), (8,), Use(1, 0, (0,))),
        ("self_attention/combined_qkv/w", (3, 8, 8, 8), (3, 8, 8), Use(1, 1, (0, 2, 3))),
    ],
)
def test_names_decide_where_sizes_are_equal(leaf: str, weight: Shape, scale: Shape, use: Use):
    assert of(SQUARE, LAYER + leaf, weight, scale, INT8) == use


def test_the_dump_decides_how_a_cube_lies():
    path = f"{LAYER}self_attention/post/w"
    for nhd, axes in ((True, (2,)), (False, (0,)), (None, (0,))):
        assert use_of(path, (8, 8, 8), (8,), Sizes(SQUARE, nhd), INT8).scaled == axes


@pytest.mark.parametrize(
    ("leaf", "weight", "scale", "factors", "use"),
    [
        ("ff_layer/ffn_layer1/linear/w", (16, 16, 24), (16, 24), INT8, Use(1, 1, (0, 2))),
        ("ff_layer/ffn_layer1/linear/w", (16, 8, 24), (16, 24), INT8, Use(2, 1, (0, 2))),
        ("self_attention/query/w", (16, 2, 2, 8), (16, 2, 8), INT32, Use(8, 1, (0, 2, 3))),
        ("self_attention/post/w", (16, 16, 2, 8), (16, 16), INT8, Use(1, 1, (0, 1))),
    ],
)
def test_stacked_layers(leaf: str, weight: Shape, scale: Shape, factors: Shape, use: Use):
    assert of(STACKED, REPEAT + leaf, weight, scale, factors) == use


@pytest.mark.parametrize(
    ("path", "weight", "scale", "factors", "use"),
    [
        # A linear layer scales each block, and packs along its values.
        (f"{LAYER}ff_layer/ffn_layer1/linear/w", (2, 8, 24), (2, 24), INT8, Use(1, 1, (0, 2), 0)),
        (f"{LAYER}ff_layer/ffn_layer1/linear/w", (2, 4, 24), (2, 24), INT8, Use(2, 1, (0, 2), 0)),
        ("lm/softmax/logits_ffn/linear/w", (2, 1, 48), (2, 48), INT32, Use(8, 1, (0, 2), 0)),
        # Attention sums over the same axis indices as without blocks.
        (f"{LAYER}self_attention/query/w", (4, 4, 2, 8), (4, 2, 8), INT8, Use(1, 0, (1, 2, 3), 0)),
        (f"{LAYER}self_attention/post/w", (16, 2, 2, 4), (16, 4), INT8, Use(1, 0, (0, 3), 2)),
    ],
)
def test_blocks(path: str, weight: Shape, scale: Shape, factors: Shape, use: Use):
    assert of(TREE, path, weight, scale, factors) == use


@pytest.mark.parametrize(
    ("path", "weight", "scale", "use"),
    [
        ("lm/softmax/logits_ffn/linear/w", (8, 48), (48,), Use(2, 0, (1,))),
        ("lm/softmax/w", (48, 16), (48,), Use(1, 0, (0,))),
        ("lm/softmax/w", (24, 16), (48,), Use(2, 0, (0,))),  # saxml packs along the words
        ("lm/embedding_lookup/emb_var", (48, 16), (48,), Use(1, 0, (0,))),
    ],
)
def test_tables(path: str, weight: Shape, scale: Shape, use: Use):
    assert of(TREE, path, weight, scale, INT8) == use


def test_experts():
    tree = {**TREE, f"{LAYER}ff_layer/wi_0": (4, 8, 32)}
    assert of(tree, f"{LAYER}ff_layer/wi_0", (4, 8, 32), (4, 32), INT8) == Use(2, 1, (0, 2))
    assert of(tree, f"{LAYER}ff_layer/wo_0", (4, 32, 16), (4, 16), INT8) == Use(1, 1, (0, 2))


def test_a_weight_that_nothing_else_tells_about_is_a_guess():
    assert use_of("w", (4, 8), (8,), Sizes({}), INT8) == Use(1, 0, (1,), guessed=True)
    assert use_of("w", (4, 8), (8,), Sizes({}), INT32) == Use(8, 0, (1,))


@pytest.mark.parametrize(
    ("leaf", "weight", "scale", "factors", "said"),
    [
        ("ff_layer/ffn_layer1/linear/w", (5, 24), (24,), INT8,
         r"5 times 1 or 2 number\(s\) are not the 16 that D has"),
        ("ff_layer/ffn_layer1/linear/w", (16, 24), (16,), INT8, r"expected scales \[24\]"),
        ("self_attention/query/w", (16,), (2,), INT8, "expected axes D N H"),
        ("self_attention/query/w", (16, 4, 8), (4, 8), INT8, "axis N has 4, other leaves have 2"),
        ("self_attention/other/w", (16, 4), (5,), INT8, "no axes of it have these sizes"),
    ],
)  # fmt: skip
def test_shapes_of_another_layer(leaf: str, weight: Shape, scale: Shape, factors: Shape, said: str):
    with pytest.raises(ValueError, match=said):
        of(TREE, LAYER + leaf, weight, scale, factors)
