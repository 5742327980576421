"""Quantized weights become the numbers that Praxis multiplies by."""

import numpy as np
import pytest

from converters.arrays.lazy import Array, Source
from converters.arrays.leaf import whole
from converters.errors import MappingError
from converters.plan.quantized import dequantize
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
    ).params
    assert list(found) == ["x/w", "o"]
    assert found["o"] is other
    array = found["x/w"]
    assert array.dtype == np.float32  # in which an int8 times a bfloat16 is exact
    wanted = weight.astype(np.float64) * scale.astype(np.float64)
    values = array.read(whole(array.shape), own_readers)
    assert values.tobytes() == wanted.astype(np.float32).tobytes()
    assert scale_dtype == "float32" or np.array_equal(values, wanted)


def test_a_product_of_int8_and_float32_is_that_of_float32():
    weight, scale = values_of((50, 40), "int8"), values_of((40,))
    made = dequantize({"w": source("w", weight), "w_quantized_scale": source("s", scale)})
    array = made.params["w"]
    found = array.read(whole(array.shape), own_readers)
    assert np.array_equal(found, weight.astype(np.float32) * scale)


def test_zero_points_are_subtracted():
    """As in Praxis: (x q) s - sum(x) z, that is q s - z, in float32."""
    weight, scale, zero = values_of((6, 5), "int8"), values_of((5,)), values_of((5,), seed=1)
    found = dequantize(
        {
            "w": source("w", weight),
            "w_quantized_scale": source("s", scale),
            "w_quantized_zp": source("z", zero),
        }
    )
    assert list(found.params) == ["w"]
    values = found.params["w"].read(whole((6, 5)), own_readers)
    assert np.array_equal(values, weight.astype(np.float32) * scale - zero)


def test_blocks_are_put_together_again():
    path = "lm/transformer/x_layers_0/ff_layer/ffn_layer1/linear/w"
    weight, scale = values_of((2, 3, 5), "int8"), values_of((2, 5))
    norm = source("n", values_of((6,)))
    found = dequantize(
        {
            "lm/final_ln/scale": norm,
            path: source("w", weight),
            f"{path}_quantized_scale": source("s", scale),
        }
    ).params[path]
    wanted = (weight * scale.astype(np.float64)[:, None]).astype(np.float32).reshape(6, 5)
    assert np.array_equal(found.read(whole((6, 5)), own_readers), wanted)


def test_a_guess_is_told():
    found = dequantize(
        {
            "w": source("w", values_of((4, 8), "int8")),
            "w_quantized_scale": source("s", values_of((8,))),
        }
    )
    assert found.weights == {"w": "int8 [4, 8]"}
    assert [note.partition(";")[0] for note in found.notes] == ["w: taken for one number a byte"]


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
        "  d/w_quantized_zp: a zero point without scales beside it\n"
        "  a/w_quantized_scale: scales [5] do not fit the weight [4, 8] int8: no axes of it have"
        " these sizes\n"
        "  b/w_quantized_scale: no quantized b/w beside it\n"
        "  c/w_quantized_scale: no quantized c/w beside it"
    )
