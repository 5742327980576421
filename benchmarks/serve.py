"""Tests a server under load: throughput, latency, overload, malformed requests, signals.

    python -m benchmarks.serve                          # all of it, about ten minutes
    python -m benchmarks.serve load --requests 500 --rounds 2    # one part, shorter
    python -m benchmarks.serve overload --requests 10000
    python -m benchmarks.serve malformed --requests 500
    python -m benchmarks.serve signals --count 10

A separate process serves a recommender with random parameters; clients, `Ranker` and the server
share this machine. In `load`, a loop of `Ranker` calls and the server take turns. Prints each
figure with its limit, and exits with 1 if one is missed.
"""

import asyncio
import json
import random
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import http_load as load
from benchmarks.measure import processor
from benchmarks.served import (
    ADMIN,
    SEEN,
    K,
    Size,
    asked,
    histories,
    make_model,
    memory,
    run,
    server,
    start,
    wait_ready,
)

BATCH = 64
TOLERANCE = 1e-5  # of log-probabilities in float32; the order of summation differs
BOUNDED = ("--max-batch", str(BATCH), "--max-queue", "256", "--timeout", "30")


class Told:
    """Prints figures with their limits."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def figure(
        self, name: str, value: float, most: float | None = None, *, least: float = 0
    ) -> None:
        """Print a figure; missed limits are listed at the end too."""
        bar = f"at most {most:g}" if most is not None else f"at least {least:g}"
        held = value <= most if most is not None else value >= least
        click.echo(f"  {name:54s} {value:10.4g}   {bar}{'' if held else '   MISSED'}")
        if not held:
            self.missed.append(name)

    @staticmethod
    def also(name: str, value: float, unit: str = "") -> None:
        """Print a figure without a limit."""
        click.echo(f"  {name:54s} {value:10.4g}   {unit}")


def measure_load(told: Told, model: Path, size: Size, requests: int, rounds: int) -> None:
    """Throughput compared with `Ranker`'s, latency, overload."""
    from efficientids_flax.inference import Ranker, open_recommender

    some = histories(max(BATCH * 8, requests // 4), size)
    ranker = Ranker(*open_recommender(model))

    def loop(count: int) -> float:
        begin = time.perf_counter()
        for first in range(0, count, BATCH):
            ranker.recommend(some[first : first + BATCH], K, exclude_seen=SEEN)
        return count / (time.perf_counter() - begin)

    sent = [asked(history) for history in some]
    loop(BATCH * 8)
    with server(model, *BOUNDED) as (process, port):
        run(load.closed_loop(port, sent[:BATCH], BATCH))
        pairs = []
        for _ in range(rounds):
            alone = loop(len(some) // BATCH * BATCH)
            served = run(load.closed_loop(port, sent, 2 * BATCH))
            assert served.statuses.keys() == {200}, served.statuses
            pairs.append((served.rate, alone))
        rate = statistics.median(pair[0] for pair in pairs)
        told.also("Ranker in a loop", statistics.median(pair[1] for pair in pairs), "histories/s")
        told.also("served, each history a request", rate, "histories/s")
        told.figure(
            "share of Ranker's throughput", statistics.median(a / b for a, b in pairs), least=0.7
        )
        measure_latency(told, ranker, some, (port, rate / 2), requests, rounds)
        told.also("memory of the server", memory(process) / 1e6, "MB")


def measure_latency(
    told: Told, ranker: Any, some: list[list[int]], where: tuple[int, float], requests: int,
    rounds: int,
) -> None:  # fmt: skip
    """Latency without load and at a rate, in turns; medians over the rounds."""
    port, rate = where
    sent, moments = [asked(history) for history in some], random.Random(0)
    found: dict[str, list[float]] = {}
    spread(ranker, some)  # compiles
    for _ in range(rounds):
        idle = run(load.closed_loop(port, sent[:100], 1)).quantile(0.5)
        ways = {"evenly": None, "at random": moments}
        for way, when in ways.items():
            some_of_them = requests // rounds
            half = run(load.at_rate(port, lambda n: sent[n % len(sent)], rate, some_of_them, 200,
                                    moments=when))  # fmt: skip
            assert half.statuses.keys() == {200} and not half.lost, half
            found.setdefault(way, []).append(half.quantile(0.99) / idle)
            found.setdefault(f"ms {way}", []).append(1000 * half.quantile(0.5))
        found.setdefault("idle", []).append(1000 * idle)
        found.setdefault("alone", []).append(spread(ranker, some))
    middle = {name: statistics.median(values) for name, values in found.items()}
    told.also("median, unloaded", middle["idle"], "ms")
    told.also("median at half of the throughput, evenly", middle["ms evenly"], "ms")
    told.also("median at half of the throughput, at random", middle["ms at random"], "ms")
    told.figure("99th percentile at half, evenly / unloaded median", middle["evenly"], 3)
    told.also("99th percentile at half, at random / unloaded median", middle["at random"])
    told.also("99th percentile / median of Ranker alone, one by one", middle["alone"])


def spread(ranker: Any, some: list[list[int]]) -> float:
    """99th percentile / median of calls without waiting: the noise of the machine."""
    seen = load.Seen()
    for history in some[:200]:
        begin = time.perf_counter()
        ranker.recommend([history], K, exclude_seen=SEEN)
        seen.seconds.append(time.perf_counter() - begin)
    return seen.quantile(0.99) / seen.quantile(0.5)


def measure_overload(told: Told, model: Path, size: Size, requests: int) -> None:
    """Send five times as many requests as it can answer."""
    sent = [asked(history) for history in histories(BATCH * 8, size)]
    with server(model, *BOUNDED) as (process, port):
        rate = run(load.closed_loop(port, sent, 2 * BATCH)).rate
        # Warm up, so that memory of Python's allocator and connections is allocated.
        few = requests // 10
        before = run(load.at_rate(port, lambda n: sent[n % len(sent)], 5 * rate, few, 800))
        start_at = memory(process)
        over = run(load.at_rate(port, lambda n: sent[n % len(sent)], 5 * rate, requests, 800))
        told.also("requests at 5 times the throughput", over.statuses.total(), "")
        told.also("offered", over.statuses.total() / over.wall / rate, "times the throughput")
        told.also("answered meanwhile", over.rate / rate, "of the throughput")
        others = sum(
            n for one in (before, over) for s, n in one.statuses.items() if s not in (200, 429)
        )
        told.figure(
            "answers but 200 and 429, connections lost", others + over.lost + before.lost, 0
        )
        told.figure("growth of memory, %", 100 * (memory(process) / start_at - 1), 5)


def measure_malformed(told: Told, model: Path, size: Size, requests: int) -> None:
    """Send malformed requests of all kinds, with valid ones in between."""
    from benchmarks import malformed
    from efficientids_flax.inference import Ranker, open_recommender

    some = histories(8, size)
    wanted = Ranker(*open_recommender(model)).recommend(some, K, exclude_seen=SEEN)
    options = ("--max-batch", "8", "--max-body", "1MiB", "--timeout", "3")
    log = model.parent / "malformed.log"
    with server(model, *options, log=log) as (process, port):

        async def check() -> int:
            client, wrong = load.Client(port), 0
            for history, ids, scores in zip(some, wanted.ids, wanted.scores, strict=True):
                status, body = await client.ask(asked(history))
                (found,) = json.loads(body)["results"] if status == 200 else ({},)
                close = np.allclose(found.get("log_probability", 0), scores, rtol=0, atol=TOLERANCE)
                wrong += not (found.get("items") == ids.tolist() and close)
            client.close()
            return wrong

        seen, wrong = run(malformed.send_all(port, ADMIN, asked(some[0]), requests, check))
        for kind, statuses in seen.items():
            counts = ", ".join(f"{count} of {status}" for status, count in sorted(statuses.items()))
            click.echo(f"  {kind:20s} {counts}")
        made = sum(statuses.total() for statuses in seen.values())
        told.also("malformed requests", made, "")
        fives = sum(n for one in seen.values() for status, n in one.items() if status >= 500)
        told.figure("answers of 5xx", fives, 0)
        told.figure("offline answers that differ", wrong, 0)
        told.figure("crashes", int(process.poll() is not None) + log.read_text().count("fault"), 0)


def measure_signals(told: Told, model: Path, count: int) -> None:
    """SIGHUP and SIGTERM while clients ask, on kept and on new connections."""
    answered, lost, wrong, hups, terms = 0, 0, 0, 0, 0
    size = Size(**json.loads((model.parent / "size.json").read_text()))
    sent = [asked(history) for history in histories(64, size, seed=1)]
    following = start(model, "--max-batch", "8", "--grace", "20")
    for number in range(count):
        process, port = following
        wait_ready(port)
        if number + 1 < count:
            following = start(model, "--max-batch", "8", "--grace", "20")
        one = run(_until_it_ends(process, port, sent, hup=number % 2 == 0))
        code = process.wait(timeout=30)
        process.stdout.close()
        answered += one.statuses[200]
        wrong += one.statuses.total() - one.statuses[200] + (code != 0)
        lost += one.lost
        hups, terms = hups + (number % 2 == 0), terms + 1
    told.also("SIGTERM, SIGHUP", terms, f"and {hups}")
    told.also("requests answered", answered, "")
    told.figure("accepted requests without an answer", lost, 0)
    told.figure("other answers than 200, exit codes than 0", wrong, 0)


async def _until_it_ends(process: Any, port: int, sent: list[bytes], *, hup: bool) -> load.Seen:
    seen = load.Seen()

    async def one(kept: bool) -> None:
        client = load.Client(port)
        for number in range(1 << 30):
            try:
                status, _ = await client.ask(sent[number % len(sent)])
            except ConnectionRefusedError:
                return
            except (OSError, EOFError):
                seen.lost += 1
                return
            seen.statuses[status] += 1
            if not kept:
                client.close()

    clients = [asyncio.create_task(one(number % 2 == 0)) for number in range(16)]
    await asyncio.sleep(0.2)
    if hup:
        process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    await asyncio.gather(*clients)
    return seen


REQUESTS = {"load": 4000, "overload": 100_000, "malformed": 10_000, "signals": 0}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(REQUESTS)))
@click.option("--requests", type=int, help="Requests of each part (default: as its bar says).")
@click.option("--count", default=100, show_default=True, help="Number of SIGTERMs.")
@click.option("--rounds", default=5, show_default=True, help="Rounds that measure throughput.")
@click.option("--items", default=Size.items, show_default=True)
@click.option("--dims", default=Size.dims, show_default=True)
@click.option("--layers", default=Size.layers, show_default=True)
def main(
    parts: tuple[str, ...], requests: int | None, count: int, rounds: int, **given: int
) -> None:
    """Measure PARTS, all by default."""
    told = Told()
    click.echo(processor())
    with tempfile.TemporaryDirectory() as made:
        for part in parts or REQUESTS:
            size = (
                Size(**given) if "load" in part else Size(items=2000, dims=32, layers=1, length=16)
            )
            model = Path(made) / part / "model"
            make_model(model, size)
            (model.parent / "size.json").write_text(json.dumps(vars(size)))
            click.echo(f"{part}: {size}")
            begin = time.monotonic()
            many = requests or REQUESTS[part]
            if part == "load":
                measure_load(told, model, size, many, rounds)
            elif part == "overload":
                measure_overload(told, model, size, many)
            elif part == "malformed":
                measure_malformed(told, model, size, many)
            else:
                measure_signals(told, model, count)
            click.echo(f"  {time.monotonic() - begin:.0f} s")
    if told.missed:
        raise click.ClickException(f"missed: {', '.join(told.missed)}")


if __name__ == "__main__":
    main()
