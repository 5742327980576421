"""Progress: a bar on a terminal, lines in the log where there is none, or nothing."""

import sys
import threading

import pytest

from converters.write import progress


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_line_of_the_log_every_few_seconds(
    clock: Clock, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    with progress.shown(3_000_000_000, quiet=False) as tell:
        tell(500_000_000)
        clock.now += 4.9
        tell(400_000_000)
        assert caplog.messages == []
        clock.now += 5.1
        tell(100_000_000)
        assert caplog.messages == ["1.00 of 3.00 GB, 100 MB/s, 20 s left"]
        tell(1)
        clock.now += 10
        tell(999_999_999)
        assert caplog.messages[1:] == ["2.00 of 3.00 GB, 100 MB/s, 10 s left"]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_quiet_says_nothing(clock: Clock, capsys: pytest.CaptureFixture):
    with progress.shown(10, quiet=True) as tell:
        clock.now += 100
        tell(10)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_threads_add_up(clock: Clock, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    with progress.shown(4_000_000_000, quiet=False) as tell:
        threads = [
            threading.Thread(target=lambda: [tell(1_000_000) for _ in range(1000)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.now += 8
        tell(0)
    assert caplog.messages == ["4.00 of 4.00 GB, 500 MB/s, 0 s left"]


def test_a_bar_on_a_terminal(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.shown(2_000_000, quiet=False) as tell:
        tell(2_000_000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "converting" in captured.err
    assert "2.0/2.0 MB" in captured.err
