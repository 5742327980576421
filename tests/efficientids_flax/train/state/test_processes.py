"""The same losses on eight devices as on one, and in two processes as in one."""

import json
import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from efficientids_flax.train.history import read_history
from tests import running

SCRIPT = Path(__file__).with_name("spread_run.py")
STEPS = 60  # more than are taken until all processes know of a signal


def finished(commands, devices):
    """What the script says at its end, None if it was stopped, with each of these arguments."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    ends = running.together(
        [[sys.executable, SCRIPT, *arguments] for arguments in commands],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
    )
    for end in ends:
        assert end.returncode == 0, end.stderr[-3000:]
    last = [(end.stdout.splitlines() or [""])[-1] for end in ends]
    return [json.loads(line) if line.startswith("{") else None for line in last]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(directory, count=2, stop=0, evaluate=0):
    given = directory, STEPS
    rest = count, free_port(), stop, evaluate
    return finished(
        [["process", *given, index, *rest] for index in range(count)],
        devices=2 // count,
    )


@pytest.fixture(scope="module")
def meshes():
    return finished([["devices"]], devices=8)[0]


@pytest.mark.parametrize("mesh", ["data", "all"])
def test_losses_do_not_depend_on_the_mesh(meshes, mesh):
    """Sums are taken in another order: roundings of 6e-8, which six steps of Adam amplify."""
    np.testing.assert_allclose(meshes[mesh]["losses"], meshes["one"]["losses"], rtol=1e-4)


def test_the_item_table_is_split(meshes):
    assert meshes["data"]["whole"]
    assert not meshes["all"]["whole"]
    assert meshes["all"]["split"] == 8


def test_two_processes_hear_a_stop_within_an_evaluation(tmp_path):
    """All after the same batch, of 400 that take 20 seconds."""
    first, second = together(tmp_path, stop=-3)
    assert first == second
    assert first["step"] == 2
    assert first["saved"] and (tmp_path / "2").is_dir()
    assert 4 <= first["read"] < 300


def test_two_processes_train_stop_and_save_together(tmp_path):
    """Each feeds half of the rows; one gets SIGTERM, and both stop at one step, with code 0.

    Then they go on, and are where one process is.
    """
    (alone,) = together(tmp_path / "alone", count=1, evaluate=1)
    both = tmp_path / "both"
    assert together(both, stop=4) == [None, None]
    stopped = max(int(path.name) for path in both.iterdir() if path.name.isdigit())
    assert 4 < stopped < STEPS
    assert [row["step"] for row in read_history(both)] == list(range(1, stopped + 1))
    one = shutil.copytree(both, tmp_path / "one")
    again, other = together(both, evaluate=1)
    assert again["parameters"] == other["parameters"]
    assert len(again["losses"]) == STEPS
    assert again["losses"][stopped:] == other["losses"]
    np.testing.assert_allclose(again["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(again["parameters"], alone["parameters"], rtol=1e-3)
    assert again["evaluated"] == other["evaluated"]
    for rows, metrics in alone["evaluated"].items():  # every row counts once
        assert again["evaluated"][rows] == pytest.approx(metrics, rel=2e-3), rows
    # With another number of processes than wrote them, and of devices a process.
    (merged,) = together(one, count=1)
    np.testing.assert_allclose(merged["losses"], alone["losses"], rtol=1e-4)
    for step in (40, 60):
        shutil.rmtree(tmp_path / "alone" / str(step))
    divided, _ = together(tmp_path / "alone")
    assert len(divided["losses"]) == STEPS
    np.testing.assert_allclose(divided["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(divided["parameters"], alone["parameters"], rtol=1e-3)
