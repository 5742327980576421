"""Quantized weights become numbers along the axes that Praxis scales."""

import numpy as np
import pytest

from converters.arrays.lazy import Array, Source
from converters.arrays.leaf import whole
from converters.errors import MappingError
from converters.plan.quantized import dequantize, scale_axes
from tests.leaves import MemoryLeaf, own_readers, values_of


def source(path: str, values: np.ndarray) -> Array:
    return Source(MemoryLeaf(values, values.shape, path))


@pytest.mark.parametrize("dtype", ["int8", "int4"])
@pytest.mark.parametrize("scale_dtype", ["float32", "bfloat16"])
def test_weights_times_their_scales(dtype: str, scale_dtype: str):
    weight, scale = values_of((6, 5), dtype), values_of((5,), scale_dtype)
    other = source("o", values_of((3,)))
    found = dequantize(
        {"x/w": source("x/w", weight), "o": other, "x/w_quantized_scale": source("s", scale)}
    )
    assert list(found) == ["x/w", "o"]
    assert found["o"] is other
    array = found["x/w"]
    assert array.dtype == scale.dtype
    wanted = weight.astype(np.float64) * scale.astype(np.float64)
    values = array.read(whole(array.shape), own_readers)
    assert values.tobytes() == wanted.astype(scale.dtype).tobytes()


def test_a_product_of_int8_and_float32_is_that_of_float32():
    weight, scale = values_of((50, 40), "int8"), values_of((40,))
    array = dequantize({"w": source("w", weight), "w_quantized_scale": source("s", scale)})["w"]
    found = array.read(whole(array.shape), own_readers)
    assert np.array_equal(found, weight.astype(np.float32) * scale)


@pytest.mark.parametrize(
    ("path", "weight", "scale", "axes"),
    [
        ("ff_layer/ffn_layer1/linear/w", (4, 8), (8,), (1,)),  # [D, F]
        ("ff_layer/ffn_layer1/linear/w", (4, 4), (4,), (1,)),
        ("self_attention/query/w", (4, 2, 3), (2, 3), (1, 2)),  # [D, N, H]
        ("self_attention/query/w", (2, 2, 2), (2, 2), (1, 2)),
        ("self_attention/post/w", (4, 2, 3), (4,), (0,)),
        ("self_attention/post/w", (2, 2, 2), (2,), (0,)),
        ("self_attention/combined_qkv/w", (3, 4, 2, 5), (3, 2, 5), (0, 2, 3)),
        ("repeat/sub/x_layers_0/ff_layer/ffn_layer1/linear/w", (2, 4, 8), (2, 8), (0, 2)),
        ("repeat/sub/x_layers_0/ff_layer/ffn_layer1/linear/w", (4, 4, 4), (4, 4), (0, 2)),
        ("repeat/sub/x_layers_0/self_attention/post/w", (2, 2, 2, 2), (2, 2), (0, 1)),
        ("pipeline/body/x_layers_0/self_attention/query/w", (2, 2, 2, 2), (2, 2, 2), (0, 2, 3)),
        ("pipeline/body/repeat/sub/x_layers_0/ff_layer/ffn_layer2/linear/w",
         (3, 3, 3, 3), (3, 3, 3), (0, 1, 3)),
    ],
)  # fmt: skip
def test_scales_run_along_the_axes_that_are_not_contracted(
    path: str, weight: tuple, scale: tuple, axes: tuple
):
    assert scale_axes(f"lm/transformer/{path}", weight, scale) == axes


def test_every_problem_is_in_one_error():
    weight = source("w", values_of((4, 8), "int8"))
    with pytest.raises(MappingError) as caught:
        dequantize(
            {
                "a/w": weight,
                "a/w_quantized_scale": source("s", values_of((5,))),
                "b/w_quantized_scale": source("s", values_of((8,))),
                "c/w": source("w", values_of((4, 8))),
                "c/w_quantized_scale": source("s", values_of((8,))),
                "d/w": weight,
                "d/w_quantized_zp": source("z", values_of((8,))),
            }
        )
    assert str(caught.value) == (
        "--dequantize: 4 problem(s):\n"
        "  a/w_quantized_scale: scales [5] do not fit the weight [4, 8]\n"
        "  b/w_quantized_scale: no quantized b/w beside it\n"
        "  c/w_quantized_scale: no quantized c/w beside it\n"
        "  d/w_quantized_zp: weights with a zero point are not dequantized"
    )
