"""The same losses on eight devices as on one, and in two processes as in one."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("spread_run.py")
PATIENCE = 240  # seconds after which a process counts as hanging


def started(arguments, devices):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(processes):
    deadline = time.monotonic() + PATIENCE
    try:
        ends = [p.communicate(timeout=max(deadline - time.monotonic(), 0.1)) for p in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    for process, (_, errors) in zip(processes, ends, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(output.splitlines()[-1]) for output, _ in ends]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(directory, steps, count=2):
    port = free_port()
    return finished(
        [
            started(["process", directory, steps, index, count, port], devices=2 // count)
            for index in range(count)
        ]
    )


@pytest.fixture(scope="module")
def meshes():
    return finished([started(["devices"], devices=8)])[0]


@pytest.mark.parametrize("mesh", ["data", "all"])
def test_losses_do_not_depend_on_the_mesh(meshes, mesh):
    """Sums are taken in another order: roundings of 6e-8, which six steps of Adam amplify."""
    np.testing.assert_allclose(meshes[mesh]["losses"], meshes["one"]["losses"], rtol=1e-4)


def test_the_item_table_is_split(meshes):
    assert meshes["data"]["whole"]
    assert not meshes["all"]["whole"]
    assert meshes["all"]["split"] == 8


def test_two_processes_train_and_save_together(tmp_path):
    """Each feeds half of the rows; they stop, and go on, at one step; as one process does."""
    (alone,) = together(tmp_path / "alone", 8, count=1)
    first, second = together(tmp_path / "both", 5)
    assert first["losses"] == second["losses"]
    assert first["checkpoints"] == [3, 5]
    again, other = together(tmp_path / "both", 8)
    assert again["parameters"] == other["parameters"]
    assert again["losses"][-3:] == other["losses"][-3:]
    np.testing.assert_allclose(again["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(again["parameters"], alone["parameters"], rtol=1e-3)
