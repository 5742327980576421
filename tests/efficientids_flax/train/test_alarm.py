"""What ends one of several processes ends all of them, with a line that says why."""

import json
import os
import sys
from pathlib import Path

import pytest

from efficientids_flax.train import alarm
from efficientids_flax.train.alarm import one_for_all
from efficientids_flax.train.loop import Preempted
from efficientids_flax.train.state import ProcessFault
from tests import running
from tests.efficientids_flax.train.state.test_processes import free_port

SCRIPT = Path(__file__).with_name("alarm_run.py")


class Coordinator:
    """Of `jax.distributed`, of two processes, as far as it is asked here."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value):
        if key in self.values:
            raise RuntimeError(f"ALREADY_EXISTS: {key}")
        self.values[key] = value

    def key_value_dir_get(self, place):
        return [(key, value) for key, value in self.values.items() if key.startswith(f"{place}/")]


@pytest.fixture
def told(monkeypatch):
    """The faults that this process, the first of two, has told of, in order."""
    coordinator = Coordinator()
    monkeypatch.setattr(alarm, "PERIOD", 0.01)
    monkeypatch.setattr(alarm, "_alarms", [alarm.Alarm(coordinator, 0, 2)])
    monkeypatch.setattr(alarm, "watch", lambda: alarm._alarms[0])
    return coordinator.values


def fails(error):
    with one_for_all(), one_for_all():
        raise error


def test_an_error_of_one_process_is_told_once(told):
    for number, error in enumerate((OSError("no disk"), SystemExit(3), ValueError("a: found b"))):
        with pytest.raises(type(error)):
            fails(error)
        assert len(told) == number + 1
    found = [json.loads(value) for value in told.values()]
    assert found == [[0, "OSError: no disk"], [0, "SystemExit: 3"], [0, "a: found b"]]


@pytest.mark.parametrize("error", [ProcessFault("step 3: process 1: no disk"), Preempted(3, True)])
def test_what_all_raise_is_not_told(told, error):
    with pytest.raises(type(error)):
        fails(error)
    assert not told


@pytest.mark.parametrize("other", [[1, "OSError: no disk"], None])
def test_a_broken_connection_names_the_process_that_broke_it(told, other):
    if other is not None:
        told[f"{alarm.PLACE}/fault/0/is"] = json.dumps(other)
    with pytest.raises(ProcessFault) as found:
        fails(ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"))
    expected = "process 1: OSError: no disk"
    if other is None:
        expected = (
            "process 0: another process is gone, it seems: UNKNOWN: Gloo AllGather failed:"
            " Connection closed by peer"
        )
    assert str(found.value) == expected


def test_a_process_that_waits_ends_with_the_one_that_failed():
    port = free_port()
    first, second = running.together(
        [[sys.executable, SCRIPT, index, port] for index in range(2)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert (first.returncode, second.returncode) == (1, 1)
    error = "FileNotFoundError: clustering.npz: no such file"
    assert first.stderr.splitlines()[-1] == error
    assert second.stderr == f"process 0: {error}; process 1 ends with it\n"
