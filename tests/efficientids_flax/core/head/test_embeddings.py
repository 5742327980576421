"""The item table and the adapters.

a look-up is clipped, and a clipped one has no gradient     `test_*_outside_of_the_table`
`input_dnn`, `output_dnn`: `num_layers` layers in all, each
  gelu_tanh(x W + b), the last one activated too            `test_adapter_*`
"""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from efficientids_flax.core.head.embeddings import (
    ItemEmbedding,
    ItemInputAdapter,
    ItemOutputAdapter,
    create_embedding_initializer,
    embedding_initializer,
)
from tests.efficientids_flax.compiled import applied

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def started(module, *given):
    """What it begins with, of one program."""
    return jax.jit(module.init)(jax.random.key(0), *given)


def table(values=ROWS, **changes):
    module = ItemEmbedding(4, 3, create_embedding_initializer(values), **changes)
    return module, started(module, np.zeros(1, int))


def test_stored_as_paxml_stores_it():
    module, variables = table()
    assert variables["params"]["kernel"].shape == (3, 4)
    np.testing.assert_array_equal(module.apply(variables, method="table"), ROWS)


def test_looks_rows_up():
    module, variables = table()
    np.testing.assert_array_equal(module.apply(variables, jnp.array([[2, 0]])), ROWS[[[2, 0]]])


def test_ids_outside_of_the_table_are_clipped():
    module, variables = table()
    got = module.apply(variables, jnp.array([102, 4, -1]))
    np.testing.assert_array_equal(got, ROWS[[3, 3, 0]])


def test_ids_outside_of_the_table_have_no_gradient():
    module, variables = table()
    total = lambda v: module.apply(v, jnp.array([3, 102, -1, 1])).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(total))(variables)
    np.testing.assert_array_equal(gradient["params"]["kernel"], [[0, 1, 0, 1]] * 3)


def test_gradient_of_a_look_up_and_of_the_table_beside_it():
    module, variables = table()

    def total(variables):
        rows, whole = module.apply(variables, jnp.array([3, 3, 102, -1]), method="with_table")
        return rows.sum() + (whole * ROWS).sum()

    gradient = jax.jit(jax.grad(total))(variables)
    np.testing.assert_array_equal(gradient["params"]["kernel"], ROWS.T + np.array([0, 0, 0, 2]))


def test_starts_from_xavier_uniform():
    params = started(ItemEmbedding(400, 300), np.zeros(1, int))["params"]
    limit = np.sqrt(6 / 700)
    kernel = np.asarray(params["kernel"])
    assert np.abs(kernel).max() <= limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.01)


@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16])
def test_an_initializer_keeps_the_dtype(dtype):
    _, variables = table(ROWS.astype(dtype))
    assert variables["params"]["kernel"].dtype == dtype


def test_float64_becomes_what_jax_has():
    _, variables = table(ROWS.astype(np.float64))
    assert variables["params"]["kernel"].dtype == jnp.float32


def test_an_initializer_gives_the_dtype_that_is_asked_for():
    _, variables = table(param_dtype="bfloat16")
    assert variables["params"]["kernel"].dtype == jnp.bfloat16


def test_an_initializer_works_under_jit():
    module = ItemEmbedding(4, 3, create_embedding_initializer(jnp.asarray(ROWS)))
    variables = started(module, np.zeros(1, int))
    np.testing.assert_array_equal(variables["params"]["kernel"], ROWS.T)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros(3), r"found \[3\] of float64, expected \[I, E\] floats"),
        (np.zeros((4, 3), int), "of int64, expected"),
    ],
)
def test_an_array_that_is_no_table(array, sentence):
    with pytest.raises(ValueError, match=sentence):
        create_embedding_initializer(array)


def test_an_array_of_another_shape():
    """Transposed, too: a table of 3 items of width 4 is not one of 4 of width 3."""
    with pytest.raises(ValueError, match="found 3 items of width 4, the table has 4 of width 3"):
        table(ROWS.T)


def test_an_array_that_is_not_finite():
    with pytest.raises(ValueError, match="2 of 12 numbers are not finite"):
        table(np.where(ROWS > 9, np.nan, ROWS))


def test_a_npy_file(tmp_path):
    path = tmp_path / "vectors.npy"
    np.save(path, ROWS)
    for source in (path, str(path)):
        made = embedding_initializer(source, shape=(4, 3))
        np.testing.assert_array_equal(made(jax.random.key(0), (3, 4)), ROWS.T)
    with pytest.raises(ValueError, match="the table has 5 of width 3"):
        embedding_initializer(path, shape=(5, 3))


@pytest.mark.parametrize("name", ["metadata", "wals"])
def test_named_tables_lie_in_the_data_directory(tmp_path, monkeypatch, name):
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / f"item_embeddings_{name}.npy", ROWS)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(embedding_initializer(name)(jax.random.key(0), (3, 4)), ROWS.T)
    elsewhere = embedding_initializer(name, directory=tmp_path / "data")
    np.testing.assert_array_equal(elsewhere(jax.random.key(0), (3, 4)), ROWS.T)


@pytest.mark.parametrize("source", [None, "random"])
def test_random_tables(source):
    drawn = embedding_initializer(source)(jax.random.key(0), (3, 4), jnp.float32)
    assert len(np.unique(drawn)) == 12


def test_an_initializer_is_taken_as_it_is():
    assert embedding_initializer(jax.nn.initializers.zeros) is jax.nn.initializers.zeros


def test_sources_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="found 'metadat', expected 'random', 'metadata', 'wals'"):
        embedding_initializer("metadat")
    with pytest.raises(FileNotFoundError, match=r"item_embedding_init: no file .*absent\.npy"):
        embedding_initializer(tmp_path / "absent.npy")
    with pytest.raises(FileNotFoundError, match=r"item_embeddings_wals\.npy"):
        embedding_initializer("wals", directory=tmp_path)


def test_a_file_with_objects_is_not_unpickled(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([print], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"allow_pickle=False|Python objects"):
        embedding_initializer(tmp_path / "objects.npy")


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_adapter_of_one_layer_is_activated():
    module = ItemInputAdapter(3, 5)
    params = started(module, ROWS)["params"]
    assert set(params) == {"layers_0"}
    params["layers_0"]["bias"] = np.arange(5, dtype=np.float32)
    want = gelu(ROWS @ np.asarray(params["layers_0"]["kernel"], float) + np.arange(5))
    found = applied(module, {"params": params}, ROWS)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_adapter_of_three_layers():
    module = ItemOutputAdapter(5, 3, hidden_dims=7, num_layers=3, activation="relu")
    params = started(module, ROWS)["params"]
    shapes = [params[f"layers_{n}"]["kernel"].shape for n in range(3)]
    assert shapes == [(3, 7), (7, 7), (7, 5)]
    want = ROWS
    for n in range(3):
        want = np.maximum(want @ np.asarray(params[f"layers_{n}"]["kernel"], float), 0)
    found = applied(module, {"params": params}, ROWS)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_adapter_computes_in_its_dtype():
    module = ItemInputAdapter(3, 5, dtype=jnp.bfloat16)
    params = started(module, ROWS)["params"]
    assert params["layers_0"]["kernel"].dtype == jnp.float32
    assert applied(module, {"params": params}, ROWS).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ItemInputAdapter(3, 5, num_layers=2), "hidden_dims: 2 layers need it"),
        (lambda: ItemInputAdapter(3, 5, activation="glue"), "activation: expected .*found 'glue'"),
        (
            lambda: ItemInputAdapter(4, 5).init(jax.random.key(0), ROWS),
            "width 3, item_embedding_dim is 4",
        ),
        (lambda: ItemOutputAdapter(4, 5).init(jax.random.key(0), ROWS), "width 3, model_dims is 5"),
    ],
)
def test_adapter_that_does_not_fit(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
