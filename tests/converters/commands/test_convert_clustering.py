"""The command convert-clustering."""

import os
import pickle

import numpy as np
import pytest
from click.testing import CliRunner, Result

from converters.commands.convert_clustering import convert_clustering
from efficientids_flax.core.clustering.tables import FIELDS, ClusteringInfo
from tests.paths import DATA

REAL = DATA / "clustering" / "a_hier_output_dnn.pkl"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(convert_clustering, [str(argument) for argument in arguments])


def assert_refused(result: Result, code: int, message: str) -> None:
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("suffix", (".npz", ".safetensors"))
def test_converts_the_originals_file(tmp_path, suffix):
    out = tmp_path / f"clustering{suffix}"
    result = run(REAL, out)
    assert result.exit_code == 0, result.output
    expected = f"{out}: 61 items in 8 clusters of 1 to 15, means [8, 16] float32\n"
    assert result.output == expected
    got, want = ClusteringInfo.from_file(out), ClusteringInfo.from_pickle(REAL)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    assert list(tmp_path.iterdir()) == [out]


def test_quiet_prints_nothing(tmp_path):
    result = run(REAL, tmp_path / "c.npz", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert ClusteringInfo.from_file(tmp_path / "c.npz").num_items == 61


def test_an_existing_output_is_kept_unless_asked(tmp_path):
    out = tmp_path / "c.npz"
    out.write_bytes(b"mine")
    assert_refused(run(REAL, out), 1, "c.npz: exists already")
    assert out.read_bytes() == b"mine"
    assert run(REAL, out, "--overwrite").exit_code == 0
    assert ClusteringInfo.from_file(out).num_items == 61


@pytest.mark.parametrize("content", (None, b"", b"\x80\x04N.", REAL.read_bytes()[:-1]))
def test_bad_input_is_exit_1(tmp_path, content):
    file, out = tmp_path / "bad.pkl", tmp_path / "c.npz"
    if content is not None:
        file.write_bytes(content)
    assert_refused(run(file, out), 1, f"Error: {file}: ")
    assert not out.exists()


def test_bad_input_keeps_the_old_output(tmp_path):
    out = tmp_path / "c.npz"
    out.write_bytes(b"mine")
    assert_refused(
        run(tmp_path / "absent.pkl", out, "--overwrite"), 1, "absent.pkl: cannot be read"
    )
    assert out.read_bytes() == b"mine"


def test_a_pickle_that_runs_code_is_named_and_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trace"),)

    file = tmp_path / "bad.pkl"
    file.write_bytes(REAL.read_bytes()[:466] + pickle.dumps(Hostile()))  # in place of pickle 2
    result = run(file, tmp_path / "c.npz")
    assert_refused(result, 1, f"{os.mkdir.__module__}.mkdir")
    assert "pickle 2 of 4 (cluster_indices), at byte 466," in result.stderr
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((REAL,), "Missing argument 'OUT'"),
        ((REAL, "c.pkl"), "ends in .pkl, expected one of .npz, .safetensors"),
        ((REAL, "c"), "has no suffix, expected one of .npz, .safetensors"),
        ((REAL, "c.npz", "--force"), "No such option"),
    ],
)
def test_wrong_usage_is_exit_2(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert_refused(run(*arguments), 2, message)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_exit_1(tmp_path):
    assert_refused(run(REAL, tmp_path / "absent" / "c.npz"), 1, "absent: no such directory")
