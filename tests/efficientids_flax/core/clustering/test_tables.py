"""ClusteringInfo: the original's files, what it keeps, and building from assignments."""

import dataclasses
import pickle
import random
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.core.clustering.tables import (
    FIELDS,
    PICKLED,
    ClusteringError,
    ClusteringInfo,
)
from tests.efficientids_flax.core.clustering.clustering_cases import (
    TABLES,
    assert_same,
    canonical,
    clusterings,
    tables,
)
from tests.paths import DATA

CLUSTERINGS = DATA / "clustering"
REAL = ("a_hier_output_dnn", "f_softcap_smoothing_zloss")


def recording(name: str) -> dict[str, np.ndarray]:
    with np.load(CLUSTERINGS / f"{name}.npz") as plain:
        return {field: plain[pickled] for field, pickled in zip(FIELDS, PICKLED, strict=True)}


def write_pickles(path: Path, arrays, protocol: int = 4) -> Path:
    path.write_bytes(b"".join(pickle.dumps(array, protocol) for array in arrays))
    return path


# --- Real files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REAL)
def test_reads_the_originals_files(name):
    clustering = ClusteringInfo.from_pickle(CLUSTERINGS / f"{name}.pkl")
    expected = recording(name)
    assert_same(clustering, expected)
    assert clustering.num_items == len(expected["cluster_of"])
    assert (clustering.num_clusters, clustering.max_cluster_size) == expected["members"].shape


@pytest.mark.parametrize("protocol", range(6))
def test_reads_what_numpy_1_wrote(protocol):
    expected = recording("f_softcap_smoothing_zloss")
    if protocol == 1:
        expected["means"] = None
    assert_same(
        ClusteringInfo.from_pickle(CLUSTERINGS / f"numpy1_protocol{protocol}.pkl"), expected
    )


def test_widens_bfloat16_means():
    expected = recording("f_softcap_smoothing_zloss")
    expected["means"] = expected["means"].astype(ml_dtypes.bfloat16).astype(np.float32)
    assert_same(ClusteringInfo.from_pickle(CLUSTERINGS / "jax_bfloat16.pkl"), expected)


@pytest.mark.parametrize("name", REAL)
def test_assignments_alone_give_the_originals_tables(name):
    expected = recording(name)
    built = ClusteringInfo.from_assignments(expected["cluster_of"], expected["means"])
    assert_same(built, expected)


@pytest.mark.parametrize("name", ("a_hier_output_dnn", "numpy1_protocol0", "numpy1_protocol5"))
def test_damaged_real_files_give_tables_or_a_clustering_error(tmp_path, name):
    content = (CLUSTERINGS / f"{name}.pkl").read_bytes()
    chance = random.Random(0)
    path = tmp_path / "damaged.pkl"
    refused = 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            ClusteringInfo.from_pickle(path)
        except ClusteringError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > len(content) / 4


# --- What is kept ---------------------------------------------------------------------------------


@given(clusterings())
@settings(max_examples=100, deadline=None)
def test_keeps_tables_in_one_form(good):
    clustering = ClusteringInfo(**good)
    assert_same(clustering, canonical(good))
    assert clustering.num_items == len(good["cluster_of"])
    assert (clustering.num_clusters, clustering.max_cluster_size) == good["members"].shape


def test_foreign_byte_order_and_column_order_are_normalised():
    foreign = tables(means=[[1.0, 2.0]] * 3)
    foreign = {
        name: np.asfortranarray(table.astype(table.dtype.newbyteorder(">")))
        for name, table in foreign.items()
    }
    clustering = ClusteringInfo(**foreign)
    for name in FIELDS:
        table = getattr(clustering, name)
        assert table.dtype.isnative
        assert table.flags.c_contiguous
        np.testing.assert_array_equal(table, foreign[name])


def test_is_read_only_and_apart_from_what_it_was_given():
    given_tables = tables()
    clustering = ClusteringInfo(**given_tables)
    given_tables["cluster_of"][0] = 2
    assert clustering.cluster_of[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        clustering.members[0, 0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        clustering.slot_of = clustering.cluster_of  # pyright: ignore[reportAttributeAccessIssue]


def test_summary_counts():
    clustering = ClusteringInfo(**tables(means=[[1.0, 2.0]] * 3))
    expected = "ClusteringInfo(6 items in 3 clusters of 1 to 3, means [3, 2] float64)"
    assert repr(clustering) == expected


def test_is_a_static_attribute_of_a_flax_module():
    """One trace for one clustering: jax.jit takes the module as a static argument."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    class Clusters(nn.Module):
        clustering: ClusteringInfo

        def __call__(self, items):
            return jnp.asarray(self.clustering.cluster_of)[items]

    traces = []

    def apply(module, items):
        traces.append(module)
        return module.apply({}, items)

    clustering = ClusteringInfo(**tables())
    jitted = jax.jit(apply, static_argnums=0)
    for _ in range(2):
        got = jitted(Clusters(clustering), jnp.arange(6))
    np.testing.assert_array_equal(got, TABLES["cluster_of"])
    assert len(traces) == 1


# --- Building from assignments --------------------------------------------------------------------


@given(clusterings())
@settings(max_examples=100, deadline=None)
def test_assignments_build_tables_in_item_order(good):
    built = ClusteringInfo.from_assignments(good["cluster_of"].tolist(), good["means"])
    np.testing.assert_array_equal(built.cluster_of, good["cluster_of"])
    for k, row in enumerate(built.members):
        np.testing.assert_array_equal(row[row >= 0], np.flatnonzero(good["cluster_of"] == k))
    assert built.max_cluster_size == np.bincount(good["cluster_of"]).max()


@pytest.mark.parametrize(
    ("cluster_of", "message"),
    [
        ([0, 2, 0], "1 clusters are empty (number the clusters without gaps): cluster 1."),
        ([0, -1, 0], "item 1 has cluster -1"),
        ([0, 0, 2**40], "item 2 has cluster 1099511627776; 3 items fill at most clusters 0 to 2"),
        ([], "expected [I] integers, I > 0"),
        ([0.5], "of float64, expected [I] integers"),
        ([[0]], "[1, 1] of int64, expected [I] integers"),
    ],
)
def test_wrong_assignments(cluster_of, message):
    with pytest.raises(ClusteringError) as caught:
        ClusteringInfo.from_assignments(cluster_of)
    assert message in str(caught.value)


def test_lopsided_assignments_do_not_exhaust_memory():
    half = 100_000
    cluster_of = np.concatenate([np.zeros(half, int), np.arange(half)])
    with pytest.raises(ClusteringError, match=r"cluster 0 has 100001 of 200000 items.*GiB"):
        ClusteringInfo.from_assignments(cluster_of)


# --- Pickles --------------------------------------------------------------------------------------


def as_numpy_1(content: bytes) -> bytes:
    return content.replace(b"numpy._core", b"numpy.core")


@given(clusterings(), st.sampled_from(("NumPy 2", "NumPy 1", "JAX")), st.data())
@settings(max_examples=100, deadline=None)
def test_any_clustering_comes_back_from_pickles(tmp_path_factory, good, producer, data):
    import jax.numpy as jnp

    expected = canonical(good)
    arrays = [good[name] for name in FIELDS]
    # Protocols 2 and 3 write module names without their length, so that they can be swapped.
    protocol = data.draw(st.sampled_from((2, 3) if producer == "NumPy 1" else range(6)))
    if producer == "JAX":
        if expected["means"] is not None and expected["means"].dtype == np.float64:
            expected["means"] = expected["means"].astype(np.float32)
            arrays[3] = expected["means"]  # JAX holds no float64
        arrays = [
            None if array is None else jnp.asarray(array.astype("i4") if n < 3 else array)
            for n, array in enumerate(arrays)
        ]
    path = write_pickles(tmp_path_factory.mktemp("any") / "c.pkl", arrays, protocol)
    if producer == "NumPy 1":
        path.write_bytes(as_numpy_1(path.read_bytes()))
    assert_same(ClusteringInfo.from_pickle(path), expected)


@given(good=clusterings())
@settings(max_examples=25, deadline=None)
def test_the_pickles_written_are_read_by_us_and_by_pickle(tmp_path_factory, good):
    path = tmp_path_factory.mktemp("back") / "clustering.pkl"
    clustering = ClusteringInfo(**good)
    clustering.save_pickle(path)
    assert_same(ClusteringInfo.from_pickle(path), canonical(good))
    assert b"numpy._core" not in path.read_bytes()  # NumPy 1, which the original has, lacks it
    with path.open("rb") as file:  # as the original reads it
        loaded = [pickle.load(file) for _ in range(4)]
        assert file.read() == b""
    for name, array in zip(FIELDS, loaded, strict=True):
        wanted = getattr(clustering, name)
        assert type(array) is type(wanted)
        if wanted is not None:
            assert array.dtype == wanted.dtype
            np.testing.assert_array_equal(array, wanted)


@pytest.mark.parametrize("count", (3, 5))
def test_wrong_number_of_pickles(tmp_path, count):
    arrays = [*tables().values(), np.ones((3, 2)), np.ones(1)][:count]
    path = write_pickles(tmp_path / "c.pkl", arrays)
    found = "holds 3 pickles, expected 4" if count == 3 else "bytes follow the 4 pickles expected"
    with pytest.raises(ClusteringError, match=f"c.pkl: .*{found}"):
        ClusteringInfo.from_pickle(path)


def test_pickle_errors_name_the_file_and_the_item(tmp_path):
    broken = tables(cluster_of=[0, 2, 0, 2, 1, 1])
    path = write_pickles(tmp_path / "c.pkl", [*broken.values(), None])
    with pytest.raises(ClusteringError, match=r"c\.pkl: (.|\n)*item 4 should be in cluster 1"):
        ClusteringInfo.from_pickle(path)


def test_only_means_may_be_none(tmp_path):
    path = write_pickles(tmp_path / "c.pkl", [None, *list(tables().values())[1:], None])
    with pytest.raises(ClusteringError, match=r"pickle 1 \(cluster_assignments\) holds None"):
        ClusteringInfo.from_pickle(path)


def test_float_ids_are_refused(tmp_path):
    floats = [table.astype(float) for table in tables().values()]
    path = write_pickles(tmp_path / "c.pkl", [*floats, None])
    with pytest.raises(ClusteringError) as caught:
        ClusteringInfo.from_pickle(path)
    for name in FIELDS[:3]:
        assert f"{name} is " in str(caught.value)
        assert "of float64" in str(caught.value)


def test_importing_it_does_not_import_jax():
    code = (
        "import sys, efficientids_flax.core.clustering.tables;"
        "print({'jax', 'flax', 'ml_dtypes', 'safetensors'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
