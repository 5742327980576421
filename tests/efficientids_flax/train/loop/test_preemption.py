"""Told to stop by Ctrl-C or SIGTERM: what was reached is on disk, and the run goes on from it."""

import os
import signal
import time

import pytest

from efficientids_flax.train.loop import Interrupted, Preempted
from efficientids_flax.train.state.disk.checkpoint import Checkpoints
from tests.efficientids_flax.train.networks import batches, begin, same, trainer

STEPS = 14


@pytest.fixture(scope="module")
def made():
    """One trainer, which compiles once; each test gives it a directory."""
    return trainer(save_every=100, eval_every=6)


@pytest.fixture(scope="module")
def whole(made):
    made.directory = None
    return made.train(begin(made), batches(), num_steps=STEPS)


@pytest.fixture
def run(made, tmp_path):
    made.directory, made._cursor = tmp_path, None
    return made


def told(number, at, again=0.0):
    """The batches, and a signal when that many were read; another one that much later."""

    def source():
        for index, batch in enumerate(batches()):
            if index == at:
                os.kill(os.getpid(), number)
                if again:
                    time.sleep(again)
                    os.kill(os.getpid(), number)
                    time.sleep(1)
            yield batch

    return source


def raised(at):
    def source():
        for index, batch in enumerate(batches()):
            if index == at:
                raise KeyboardInterrupt
            yield batch

    return source


def died(at):
    """Data whose workers get the same signal."""

    def source():
        for index, batch in enumerate(batches()):
            if index == at:
                os.kill(os.getpid(), signal.SIGTERM)
                raise RuntimeError("a worker has died")
            yield batch

    return source


def goes_on(run, whole):
    run._cursor = None
    return same(run.train(begin(run), told(signal.SIGINT, -1), num_steps=STEPS), whole)


def test_workers_of_the_data_that_die_of_the_signal_do_not_fail_the_run(run, whole):
    with pytest.raises(Preempted, match="stopped by SIGTERM after step 4; saved"):
        run.train(begin(run), died(4), num_steps=STEPS)
    assert goes_on(run, whole)


@pytest.mark.parametrize(
    ("number", "kind", "named"),
    [
        (signal.SIGINT, Interrupted, "Ctrl-C"),
        (signal.SIGTERM, Preempted, "SIGTERM"),
        (signal.SIGHUP, Preempted, "SIGHUP"),  # the terminal was closed
        (signal.SIGUSR1, Preempted, "SIGUSR1"),  # a scheduler tells that the time is nearly over
    ],
)
def test_a_signal_saves_the_step_that_was_reached(run, whole, number, kind, named):
    before = signal.getsignal(number)
    with pytest.raises(kind, match=f"stopped by {named} after step 5; saved") as end:
        run.train(begin(run), told(number, 4), num_steps=STEPS)
    assert isinstance(end.value, KeyboardInterrupt if number == signal.SIGINT else SystemExit)
    assert (run.directory / "5").is_dir()
    assert signal.getsignal(number) is before
    assert int(run.last_state.step) == 5
    assert goes_on(run, whole)


def test_a_signal_that_the_program_handles_is_its_own(run):
    received = []
    before = signal.signal(signal.SIGUSR2, lambda *_: received.append("USR2"))
    try:
        state = run.train(begin(run), told(signal.SIGUSR2, 4), num_steps=STEPS)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert (received, int(state.step)) == (["USR2"], STEPS)


@pytest.mark.parametrize("source", [raised(4), told(signal.SIGINT, 4, again=0.01)])
def test_an_interrupt_amid_the_data_saves_what_is_there(run, whole, source):
    with pytest.raises(KeyboardInterrupt):
        run.train(begin(run), source, num_steps=STEPS)
    assert (run.directory / "4").is_dir()
    assert goes_on(run, whole)


def test_an_iterator_that_was_interrupted_is_not_believed(run, whole):
    """It has gone on, and its batch was never used."""

    class Interrupting:
        def __iter__(self):
            inner = iter(batches())
            take = inner.__next__

            class Reader:
                reads = 0

                def __iter__(self):
                    return self

                def __next__(self):
                    batch = take()
                    self.reads += 1
                    if self.reads == 5:
                        raise KeyboardInterrupt
                    return batch

                get_state, set_state = inner.get_state, inner.set_state

            return Reader()

    with pytest.raises(KeyboardInterrupt):
        run.train(begin(run), Interrupting(), num_steps=STEPS)
    run._cursor = None
    assert same(run.train(begin(run), batches(), num_steps=STEPS), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_heard_during_an_evaluation(run, whole, number):
    read = []

    def evaluation():
        for index, batch in enumerate(batches(epochs=1)):
            read.append(index)
            if index == 1:
                os.kill(os.getpid(), number)
            yield batch

    with pytest.raises((KeyboardInterrupt, SystemExit), match="after step 6; saved"):
        run.train(begin(run), batches(), evaluation, num_steps=STEPS)
    assert read == [0, 0, 1]  # the first was looked at before the first step
    run._cursor = None
    assert same(run.train(begin(run), batches(), num_steps=STEPS), whole)


def test_without_a_directory_the_state_is_left_in_memory(run, whole):
    run.directory = None
    source = told(signal.SIGINT, 4)
    with pytest.raises(KeyboardInterrupt, match=r"after step 5$"):
        run.train(begin(run), source, num_steps=STEPS)
    assert same(run.train(run.last_state, source, num_steps=STEPS), whole)


def test_data_that_was_interrupted_goes_on_at_its_place_in_memory(run, whole):
    """The generator has ended with the interrupt; that is not the end of an epoch."""
    run.directory = None
    left = [1]

    def source():
        for index, batch in enumerate(batches()):
            if index == 4 and left:
                left.pop()
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        run.train(begin(run), source, num_steps=STEPS)
    assert same(run.train(run.last_state, source, num_steps=STEPS), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_amid_the_last_save_waits_for_it(run, monkeypatch, number):
    close = Checkpoints.close

    def told_and_closed(checkpoints):
        os.kill(os.getpid(), number)
        close(checkpoints)

    monkeypatch.setattr(Checkpoints, "close", told_and_closed)
    with pytest.raises((KeyboardInterrupt, SystemExit), match="after step 3; saved"):
        run.train(begin(run), batches(), num_steps=3)
    assert (run.directory / "3").is_dir()


def test_nothing_is_saved_before_the_first_step(run, whole):
    with pytest.raises(KeyboardInterrupt):
        run.train(begin(run), raised(0), num_steps=STEPS)
    assert not any(path.name.isdigit() for path in run.directory.iterdir())
    assert goes_on(run, whole)


def test_what_the_caller_ignores_stays_ignored(run, whole):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert same(run.train(begin(run), told(signal.SIGINT, 4), num_steps=STEPS), whole)
    finally:
        signal.signal(signal.SIGINT, before)
