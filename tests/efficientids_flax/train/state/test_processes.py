"""The same losses on eight devices as on one, and in two processes as in one."""

import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from efficientids_flax.train.history import read_history
from tests import running

SCRIPT = Path(__file__).with_name("spread_run.py")
STEPS = 60  # more than are taken until all processes know of a signal


def finished(commands, devices):
    """What the script says of its runs, with each of these arguments."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    ends = running.together(
        [[sys.executable, SCRIPT, *arguments] for arguments in commands],
        # Devices wait for each other in XLA's threads: of as few as devices all may wait for ever.
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "NPROC": "32"},
    )
    for end in ends:
        assert end.returncode == 0, end.stderr[-3000:]
    return [
        [json.loads(line) for line in end.stdout.splitlines() if line.startswith("{")]
        for end in ends
    ]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def together(*runs, count=2):
    """What each of so many processes, of two devices, says of these runs, which it does in turn.

    A process takes longer to start than to do one.
    """
    port = free_port()
    return finished(
        [["process", index, count, port, STEPS, *runs] for index in range(count)],
        devices=2 // count,
    )


def run(directory, stop=0, evaluate=0):
    return f"{directory},{stop},{evaluate}"


@pytest.fixture(scope="module")
def meshes():
    return finished([["devices"]], devices=8)[0][0]


class Runs(NamedTuple):
    """What the processes said of each; `stopped` nothing, after `step`."""

    stopped: list[list[dict]]
    step: int
    again: list[dict]
    alone: dict
    merged: dict
    divided: list[dict]
    evaluating: list[dict]
    while_evaluating: Path


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    alone, both, one, evaluating = (place / name for name in ("alone", "both", "one", "evaluating"))
    stopped = together(run(both, stop=4))
    step = max(int(path.name) for path in both.iterdir() if path.name.isdigit())
    assert [row["step"] for row in read_history(both)] == list(range(1, step + 1))
    shutil.copytree(both, one)
    ((all_rows, merged),) = together(run(alone, evaluate=1), run(one), count=1)
    for later in (40, 60):
        shutil.rmtree(alone / str(later))
    ends = together(run(both, evaluate=1), run(alone), run(evaluating, stop=-3))
    again, divided, stops = zip(*ends, strict=True)
    return Runs(stopped, step, again, all_rows, merged, divided, stops, evaluating)


@pytest.mark.parametrize("mesh", ["data", "all"])
def test_losses_do_not_depend_on_the_mesh(meshes, mesh):
    """Sums are taken in another order: roundings of 6e-8, which six steps of Adam amplify."""
    np.testing.assert_allclose(meshes[mesh]["losses"], meshes["one"]["losses"], rtol=1e-4)


def test_the_item_table_is_split(meshes):
    assert meshes["data"]["whole"]
    assert not meshes["all"]["whole"]
    assert meshes["all"]["split"] == 8


def test_two_processes_hear_a_stop_within_an_evaluation(runs):
    """All after the same batch, of 400 that take 20 seconds."""
    first, second = runs.evaluating
    assert first == second
    assert first["step"] == 2
    assert first["saved"] and (runs.while_evaluating / "2").is_dir()
    assert 4 <= first["read"] < 300


def test_two_processes_train_stop_and_save_together(runs):
    """Each feeds half of the rows; one gets SIGTERM, and both stop at one step, with code 0.

    Then they go on, and are where one process is.
    """
    assert runs.stopped == [[], []]
    assert 4 < runs.step < STEPS
    again, other = runs.again
    assert again["parameters"] == other["parameters"]
    assert len(again["losses"]) == STEPS
    assert again["losses"][runs.step :] == other["losses"]
    np.testing.assert_allclose(again["losses"], runs.alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(again["parameters"], runs.alone["parameters"], rtol=1e-3)
    assert "process 1: train_dataset: the data ended after 0 batches" in again["refused"][0]
    assert "batch: process 1 has {'x': [1, 6], 'y': [1]}, process 0 has" in again["refused"][1]
    assert again["refused"][2].startswith("step 2: batch: the processes brought different shapes")
    assert again["refused"][3:] == [
        "step 3: process 1: OSError: no disk",
        "step 3: process 1: the data ended after 2 batches",
        2,  # steps that were taken, and would be saved
        "evaluation: process 1: evaluation: expected a dict of arrays, found a NoneType; name the"
        " fields: {'inputs': ..., 'targets': ...}",
        "process 1 is not set up as process 0: params/Dense_0/kernel has other numbers,"
        " params/Dense_1/kernel has other numbers, rng has other numbers; start all with the same"
        " configuration, seed and parameters",
        "process 1 is not set up as process 0: optimizer/update_fns.2.tx.update.step_size is -0.02,"
        " there -0.01; start all with the same configuration, seed and parameters",
    ]
    assert again["refused"][1:] == other["refused"][1:]
    assert again["evaluated"] == other["evaluated"]
    for rows, metrics in runs.alone["evaluated"].items():  # every row counts once
        assert again["evaluated"][rows] == pytest.approx(metrics, rel=2e-3), rows


def test_processes_and_devices_need_not_be_as_many_as_wrote(runs):
    np.testing.assert_allclose(runs.merged["losses"], runs.alone["losses"], rtol=1e-4)
    divided, _ = runs.divided
    assert len(divided["losses"]) == STEPS
    np.testing.assert_allclose(divided["losses"], runs.alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(divided["parameters"], runs.alone["parameters"], rtol=1e-3)
