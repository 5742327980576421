"""Collects questions for a few milliseconds and answers them as a batch, off the event loop.

One thread uses the device. Everything else here runs on the event loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from efficientids_flax.inference import Question
from efficientids_flax.serve.answers.current import Snapshot
from efficientids_flax.serve.limits import Limits

LONGEST_WAIT = 60  # seconds: the highest Retry-After
FORGET = 0.2  # weight of the newest batch in the moving average of the speed


class Answer(NamedTuple):
    """The answer to one question.

    Attributes:
        rows: item numbers, best first; candidates in the order given.
        scores: their log-probabilities.
    """

    rows: list[int]
    scores: list[float]


class BusyError(Exception):
    """The queue is full, or too long to be answered within the timeout.

    Attributes:
        retry_after: seconds after which to try again.
    """

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"too many histories are waiting; try again in {retry_after} s")
        self.retry_after = retry_after


class _Request:
    """The questions of one request; `done` is set when all are answered."""

    __slots__ = ("answers", "done", "left")

    def __init__(self, count: int) -> None:
        self.done: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self.answers: list[Answer | None] = [None] * count
        self.left = count


class _Waiting(NamedTuple):
    """A question in the queue, with its request and its place in it."""

    snapshot: Snapshot
    question: Question
    request: _Request
    place: int
    arrived: float

    @property
    def kind(self) -> tuple[int, bool]:
        """Key of what can share a batch: same snapshot, and either all or none with candidates."""
        return id(self.snapshot), self.question.candidates is not None


@dataclass
class Told:
    """Callbacks for metrics, see `web.metrics`.

    Attributes:
        batch: called after each batch with its size, the seconds it took, and the seconds that its
            first question waited.
        queue: called with the number of waiting questions.
    """

    batch: Callable[[int, float, float], None] = lambda size, seconds, waited: None
    queue: Callable[[int], None] = lambda waiting: None


class Gathering:
    """The queue, and the task that answers from it.

    Args:
        limits: limits of the server.
        told: callbacks for metrics.
    """

    def __init__(self, limits: Limits, told: Told | None = None) -> None:
        self._limits, self._told = limits, told or Told()
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()
        self._device = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._task: asyncio.Task[None] | None = None
        self._speed: float | None = None  # histories per second while the device is busy

    def start(self) -> None:
        """Start answering; call on the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Stop; those who still wait get a `CancelledError`."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for one in self._waiting:
            one.request.done.cancel()
        self._waiting.clear()
        self._device.shutdown(wait=True)

    async def ask(self, snapshot: Snapshot, questions: Sequence[Question]) -> list[Answer]:
        """Wait for the answers, in the order of the questions.

        Raises:
            BusyError: the queue is full, or the answer would come after the timeout.
        """
        self.check_room(len(questions))
        request, now = _Request(len(questions)), time.monotonic()
        for place, question in enumerate(questions):
            self._waiting.append(_Waiting(snapshot, question, request, place, now))
        self._told.queue(len(self._waiting))
        self._arrived.set()
        if len(self._waiting) >= self._limits.max_batch:
            self._full.set()
        return await request.done  # cancelled with the task that waits: see `_take`

    def check_room(self, count: int) -> None:
        """Raise `BusyError` if `count` more questions cannot wait."""
        count += len(self._waiting)
        if count > self._limits.max_queue or self._seconds(count) > self._limits.timeout:
            raise BusyError(min(max(math.ceil(self._seconds(count)), 1), LONGEST_WAIT))

    def _seconds(self, count: int) -> float:
        """The expected time to answer `count` questions."""
        return 0.0 if self._speed is None else count / self._speed

    async def _work(self) -> None:
        while True:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            batch: list[_Waiting] = []
            try:
                await self._gathered()
                batch += self._take()
                self._told.queue(len(self._waiting))
                if batch:
                    await self._answer(batch)
            except Exception as error:  # a bug; passed on to those who asked
                for one in batch:
                    if not one.request.done.done():
                        one.request.done.set_exception(error)

    async def _answer(self, batch: list[_Waiting]) -> None:
        loop, start = asyncio.get_running_loop(), time.monotonic()
        answers = await loop.run_in_executor(self._device, answer, batch)
        seconds = time.monotonic() - start
        self._measure(len(batch), seconds)
        self._told.batch(len(batch), seconds, start - batch[0].arrived)
        for one, made in zip(batch, answers, strict=True):
            self._give(one, made)

    async def _gathered(self) -> None:
        """Wait until the batch is full or its first question has waited for `max_delay_ms`."""
        until = self._waiting[0].arrived + self._limits.max_delay_ms / 1000
        left = until - time.monotonic()
        if left <= 0 or len(self._waiting) >= self._limits.max_batch:
            return
        self._full.clear()
        try:
            async with asyncio.timeout(left):
                await self._full.wait()
        except TimeoutError:
            pass

    def _take(self) -> list[_Waiting]:
        """Take the first question whose client still waits, and others of its kind."""
        taken: list[_Waiting] = []
        aside: list[_Waiting] = []
        if not self._waiting:
            return taken
        ranker = self._waiting[0].snapshot.export.ranker
        most = ranker.together(min(len(self._waiting), self._limits.max_batch))
        while self._waiting and len(taken) < most:
            one = self._waiting.popleft()
            if one.request.done.done():
                continue  # the client gave up
            (taken if not taken or one.kind == taken[0].kind else aside).append(one)
        self._waiting.extendleft(reversed(aside))
        return taken

    def _measure(self, count: int, seconds: float) -> None:
        """Update the speed. Only batches that left others waiting count, since those are full."""
        if not self._waiting:
            return
        speed = count / max(seconds, 1e-6)
        self._speed = speed if self._speed is None else self._speed + FORGET * (speed - self._speed)

    @staticmethod
    def _give(one: _Waiting, made: Answer) -> None:
        request = one.request
        request.answers[one.place] = made
        request.left -= 1
        if not request.left and not request.done.done():
            request.done.set_result([found for found in request.answers if found is not None])


def answer(batch: Sequence[_Waiting]) -> list[Answer]:
    """Compute a batch of one kind; runs in the device's thread."""
    snapshot, questions = batch[0].snapshot, [one.question for one in batch]
    ranker = snapshot.export.ranker
    if questions[0].candidates is not None:
        scores = ranker.score(questions).tolist()
        given = [list(one.candidates or ()) for one in questions]
        return [Answer(rows, row[: len(rows)]) for rows, row in zip(given, scores, strict=True)]
    ids, scores = (part.tolist() for part in ranker.find(questions, snapshot.membership))
    found = []
    for one, rows, row in zip(questions, ids, scores, strict=True):
        count = next((place for place, item in enumerate(rows[: one.k]) if item < 0), one.k)
        found.append(Answer(rows[:count], row[:count]))
    return found
