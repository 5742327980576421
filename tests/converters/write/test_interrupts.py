"""Ctrl-C waits for the end of the block; a second one does not."""

import signal
import threading
from collections.abc import Iterator

import pytest

from converters.write.interrupts import interrupt_at_the_end


@pytest.fixture(autouse=True)
def python_handles_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_block_is_told_and_comes_to_its_end():
    seen: list[str] = []
    with (
        pytest.raises(KeyboardInterrupt),
        interrupt_at_the_end(lambda: seen.append("told")),
    ):
        signal.raise_signal(signal.SIGINT)
        seen.append("ended")
    assert seen == ["told", "ended"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_counts_more_than_what_it_causes():
    with pytest.raises(KeyboardInterrupt), interrupt_at_the_end(lambda: None):
        signal.raise_signal(signal.SIGINT)
        raise ValueError("stopped")


def test_the_second_one_is_raised_at_once():
    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt), interrupt_at_the_end(lambda: seen.append("told")):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        seen.append("not reached")
    assert seen == ["told"]


def test_without_one_nothing_is_raised():
    with interrupt_at_the_end(pytest.fail):
        pass
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_handler_is_left_alone():
    seen: list[int] = []

    def own(number: int, frame: object) -> None:
        seen.append(number)

    signal.signal(signal.SIGINT, own)
    with interrupt_at_the_end(pytest.fail):
        signal.raise_signal(signal.SIGINT)
    assert seen == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is own


def test_another_thread_changes_nothing():
    found: list[object] = []

    def block() -> None:
        with interrupt_at_the_end(pytest.fail):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
