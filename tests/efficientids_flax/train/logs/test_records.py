"""History, event files, progress, the monitor, what a step costs: small parts by themselves."""

import io
import json
import math

import pytest

from efficientids_flax.train.history import History, read_history
from efficientids_flax.train.logs import event_files
from efficientids_flax.train.logs.event_files import EventFile
from efficientids_flax.train.logs.progress import make_progress
from efficientids_flax.train.state.monitor import Monitor


def test_history_joins_what_belongs_to_a_step(tmp_path):
    history = History(tmp_path)
    rows = [[0.1, 1e-300], [math.nan, 2.0], [-math.inf, 1e300]]
    history.add_steps(1, ("loss", 'a "b" 50%'), rows)
    history.add({"step": 2, "eval_loss": 1.0})
    history.close()
    assert [row["step"] for row in history.rows] == [1, 2, 3]
    assert read_history(tmp_path) == [
        {"step": 1, "loss": 0.1, 'a "b" 50%': 1e-300},
        {"step": 2, "loss": None, 'a "b" 50%': 2.0, "eval_loss": 1.0},  # JSON has no NaN
        {"step": 3, "loss": None, 'a "b" 50%': 1e300},
    ]


class Closed(io.StringIO):
    """A pipe whose reader has gone, after some lines."""

    def write(self, text):
        if self.getvalue().count("\n") > 1:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


@pytest.mark.parametrize("kind", ["lines", "bar"])
def test_a_run_goes_on_where_nobody_can_see_it_any_more(kind):
    stream = Closed()
    display = make_progress(kind, 0, 10, stream)
    for step in range(1, 11):
        display.update(step, {"loss": 1.0})
        display.note(f"note {step}")
    display.close()
    assert stream.getvalue()


def test_history_drops_what_is_measured_again_and_a_torn_line(tmp_path):
    history = History(tmp_path)
    history.add_steps(1, ("loss",), [[1.0], [2.0], [3.0]])
    history.close()
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    whole = (tmp_path / "history.jsonl").read_bytes()
    (tmp_path / "history.jsonl").write_bytes(b'\0\xff\n{"loss": 1.0}\n[1]\n' + whole)
    again = History(tmp_path, start=2)
    again.add({"step": 3, "loss": 30.0})
    again.close()
    assert [row["loss"] for row in read_history(tmp_path)] == [1.0, 2.0, 30.0]
    fresh = History(tmp_path)
    fresh.close()
    assert read_history(tmp_path) == []


@pytest.mark.parametrize("installed", [True, False])
def test_event_files_have_the_checksums_of_tensorboard(tmp_path, monkeypatch, installed):
    if not installed:  # google-crc32c
        monkeypatch.setattr(event_files, "_crc32c", lambda: event_files._by_bytes)
    record_writer = pytest.importorskip("tensorboardX.record_writer")
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    file = EventFile(tmp_path)
    file.scalars(300, {"train/loss": 0.25, "a" * 200: -1.5})
    file.close()
    (path,) = tmp_path.iterdir()
    content, events = path.read_bytes(), []
    while content:
        size = int.from_bytes(content[:8], "little")
        length, check = content[:8], content[8:12]
        assert int.from_bytes(check, "little") == record_writer.masked_crc32c(length)
        event, check = content[12 : 12 + size], content[12 + size : 16 + size]
        assert int.from_bytes(check, "little") == record_writer.masked_crc32c(event)
        events.append(event_pb2.Event.FromString(event))
        content = content[16 + size :]
    assert events[0].file_version == "brain.Event:2"
    assert events[1].step == 300
    found = {value.tag: value.simple_value for value in events[1].summary.value}
    assert found == {"train/loss": 0.25, "a" * 200: -1.5}


def test_two_event_files_of_one_second_do_not_meet(tmp_path):
    EventFile(tmp_path).close()
    EventFile(tmp_path).close()
    assert len(list(tmp_path.iterdir())) == 2


def test_lines_tell_loss_speed_and_what_is_left():
    stream = io.StringIO()
    progress = make_progress("auto", 0, 100, stream)
    progress.update(10, {"loss": 2.5, "steps_per_second": 2.0, "tokens_per_second": 12_345.0})
    progress.update(20, {"loss": 2.0})  # within the second
    progress.update(100, {"loss": 1.0})
    progress.note("saved")
    progress.close()
    assert stream.getvalue().splitlines() == [
        "step 10/100  loss 2.5  12,345 tokens/s  2 steps/s  0:45 left",
        "step 100/100  loss 1",
        "saved",
    ]


def test_the_bar_is_drawn_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = make_progress("auto", 0, 100, stream)
    progress.update(50, {"loss": 2.5, "steps_per_second": 0.01})
    progress.close()
    assert "50/100" in stream.getvalue()
    assert "1:23:20 left" in stream.getvalue()


@pytest.mark.parametrize(("mode", "values"), [("min", [3, 2, 2.5, 1.95]), ("max", [1, 2, 1.5, 2])])
def test_monitor_finds_the_best_and_loses_patience(mode, values):
    monitor = Monitor("m", mode, patience=2, min_delta=0.1)
    found = [monitor.update({"m": value}) for value in values]
    assert found == [True, True, False, mode == "min"]  # 1.95 is the best, too little to wait for
    assert monitor.exhausted
    assert monitor.best == values[-1]
    again = Monitor("m", mode, patience=3, min_delta=0.1)
    again.restore(json.loads(json.dumps(monitor.state())))
    assert (again.best, again.waited, again.exhausted) == (values[-1], 2, False)
    assert again.update({"m": 1.91 if mode == "min" else 2.09})
    assert again.exhausted  # still within 0.1 of the 2 that began the waiting
    other = Monitor("m", "max" if mode == "min" else "min", patience=3, min_delta=0.1)
    other.restore(monitor.state())  # compared in the other direction, it says nothing
    assert (other.best, other.waited) == (None, 0)


def test_monitor_takes_what_is_not_finite_for_no_better():
    monitor = Monitor("m", "min", patience=3, min_delta=0.0)
    values = [float("nan"), -float("inf"), 2.0, float("nan"), 1.0]
    assert [monitor.update({"m": value}) for value in values] == [False, False, True, False, True]
    assert (monitor.best, monitor.waited) == (1.0, 0)


def test_monitor_names_the_metrics_there_are():
    with pytest.raises(ValueError, match="no 'eval_los'; it has eval_accuracy, eval_loss"):
        Monitor("eval_los", "min", None, 0).update({"eval_loss": 1, "eval_accuracy": 1})
