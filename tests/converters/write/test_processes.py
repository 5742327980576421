"""Processes: a single one, and joined by JAX (other tests start real processes)."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import jax
import pytest

from converters.errors import CheckpointError, ConversionError
from converters.write import processes
from converters.write.processes import JaxProcesses, OneProcess, Processes, together


def test_one_process_waits_for_nobody():
    alone = OneProcess()
    assert (alone.index, alone.count) == (0, 1)
    alone.meet("written", None)
    error = CheckpointError("damaged")
    with pytest.raises(CheckpointError) as caught:
        alone.meet("written", error)
    assert caught.value is error


class Client:
    """JAX's means of communication between processes, for threads that stand for processes."""

    def __init__(self, count: int) -> None:
        self.told: dict[str, str] = {}
        self.places: set[str] = set()
        self.barrier = threading.Barrier(count, timeout=120)

    def key_value_set(self, key: str, value: str) -> None:
        assert key not in self.told
        self.told[key] = value

    def wait_at_barrier(self, name: str, timeout_in_ms: int) -> None:
        assert timeout_in_ms > 0
        self.places.add(name.rpartition("/")[2])
        try:
            self.barrier.wait()
        except threading.BrokenBarrierError as error:
            raise RuntimeError("DEADLINE_EXCEEDED: barrier\nand more") from error

    def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.told.items() if key.startswith(prefix)]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """`played(count, act)`: what `act(process)` returns or raises on each of `count` processes."""

    def play(count: int, act: Callable[[Processes], Any]) -> list[Any]:
        client, meetings = Client(count), threading.local()

        class Own:  # each process counts its own meetings
            def __next__(self) -> int:
                meetings.count = getattr(meetings, "count", -1) + 1
                return meetings.count

        monkeypatch.setattr(processes, "_state", lambda: SimpleNamespace(client=client))
        monkeypatch.setattr(processes, "_meetings", Own())

        def one(index: int) -> Any:
            try:
                return act(JaxProcesses(index, count))
            except Exception as error:
                return error

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(one, range(count)))

    return play


def test_all_go_on_where_none_failed(played: Callable[..., list[Any]]):
    def act(process: Processes) -> str:
        process.meet("opened", None)
        process.meet("written", None)
        return "done"

    assert played(3, act) == ["done"] * 3


def test_where_one_fails_all_fail_and_the_others_say_which(played: Callable[..., list[Any]]):
    def act(process: Processes) -> None:
        process.meet("opened", None)
        process.meet("written", CheckpointError("damaged") if process.index == 1 else None)

    found = played(3, act)
    assert [type(error) for error in found] == [ConversionError, CheckpointError, ConversionError]
    assert [str(error) for error in found] == [
        "process 1 failed: damaged",
        "damaged",
        "process 1 failed: damaged",
    ]


def test_every_failure_is_told_to_the_rest(played: Callable[..., list[Any]]):
    def act(process: Processes) -> None:
        process.meet("x", ValueError(f"bad {process.index}") if process.index % 2 else None)

    found = played(4, act)
    assert str(found[0]) == str(found[2]) == "process 1 failed: bad 1\nprocess 3 failed: bad 3"
    assert [type(found[1]), type(found[3])] == [ValueError, ValueError]


def test_a_process_that_is_gone(monkeypatch: pytest.MonkeyPatch):
    client = Client(2)
    client.barrier.abort()
    monkeypatch.setattr(processes, "_state", lambda: SimpleNamespace(client=client))
    with pytest.raises(
        ConversionError, match=r"gone \(until 'written'\): DEADLINE_EXCEEDED: b\w+$"
    ):
        JaxProcesses(0, 2).meet("written", None)
    with pytest.raises(CheckpointError, match=r"^damaged$"):  # one's own error says more
        JaxProcesses(0, 2).meet("written", CheckpointError("damaged"))


def test_a_stage_gives_each_what_it_made_of_it(played: Callable[..., list[Any]]):
    assert played(3, lambda p: together(p, "stage", lambda: p.index * 2)) == [0, 2, 4]


def test_a_stage_that_fails_on_one_fails_on_all(played: Callable[..., list[Any]]):
    def act(process: Processes) -> float:
        return together(process, "stage", lambda: 1 / process.index)

    found = played(2, act)
    assert isinstance(found[0], ZeroDivisionError)
    assert str(found[1]) == "process 0 failed: division by zero"


@pytest.mark.parametrize("error", [RuntimeError("deadline"), ValueError("no coordinator")])
def test_processes_that_cannot_join(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def initialize(*given: object) -> None:
        assert given == ("host:1", 2, 1)
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ConversionError, match=rf"cannot join: {error}\. Give --coordinator"):
        JaxProcesses.start("host:1", 2, 1)


def test_processes_that_join_know_their_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: None)
    state = SimpleNamespace(process_id=2, num_processes=5)
    monkeypatch.setattr(processes, "_state", lambda: state)
    assert JaxProcesses.start() == JaxProcesses(2, 5)


def test_jax_has_the_connection_that_is_used():
    state = processes._state()
    assert {"client", "process_id", "num_processes"} <= set(dir(state))
