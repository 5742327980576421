"""Compares `efficientids prepare` with DuckDB's copy of the same rows, sorted by user and time.

    python -m benchmarks.preparing [--rows 20000000] [--rounds 3] [--mixed]

Both read a synthetic `ratings.csv` in the layout of MovieLens, sorted by user and movie like the
real one (with `--mixed`, a million rows at a time in any order, so that no user's rows are
together), and write Parquet. Each run is a separate process, imports included; the two take turns,
and medians count. The copy is the least DuckDB can do for sorted rows: it checks and maps no ids,
looks for no duplicates, splits nothing, and leaves the order of equal times open.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from benchmarks.measure import PROGRAM, Run, measure, medians, processor, size_of

MOVIES, PER_USER = 27_000, 144  # as in MovieLens 20M, like the distributions below
SESSION = 20_000  # seconds within which a user rates, some movies at the same time
TWICE = 1.085  # compensates for movies drawn twice for a user, which count once
PIECE = 1 << 20
MEMORY = "2GiB"
AIM, MOST_BYTES = 1.5, 2 << 30
COPY = """
import sys, duckdb
source, out = sys.argv[1:]
connection = duckdb.connect(config={"memory_limit": "MEMORY", "temp_directory": out + ".spilled"})
rows = f"SELECT * FROM read_csv('{source}/ratings.csv') ORDER BY \\"userId\\", \\"timestamp\\""
import pathlib; pathlib.Path(out).mkdir()
connection.execute(f"COPY ({rows}) TO '{out}/rows.parquet' (FORMAT parquet)")
""".replace("MEMORY", MEMORY)


@click.command()
@click.option(
    "--rows", default=20_000_000, show_default=True, help="About this many rows, of 60 bytes."
)
@click.option("--rounds", default=3, show_default=True)
@click.option("--mixed", is_flag=True, help="Shuffle the rows of all users.")
def main(rows: int, rounds: int, mixed: bool) -> None:
    """Print a table of both ways, and their ratio."""
    with TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        written = write_ratings(source / "ratings.csv", rows, mixed=mixed)
        runs: dict[str, list[Run]] = {"DuckDB's COPY": [], "efficientids prepare": []}
        for turn in range(rounds):
            out = Path(folder) / f"out-{turn}"
            copy = [sys.executable, "-c", COPY, str(source), str(out)]
            ours = [sys.executable, "-c", PROGRAM, "prepare", str(source), "--out", str(out),
                    "--memory", MEMORY, "-q"]  # fmt: skip
            for name, command in zip(runs, (copy, ours), strict=True):
                runs[name].append(measure(command, source, out, cold=False))
        size = size_of(source)
    click.echo(_table({name: medians(found) for name, found in runs.items()}, written, size))


def write_ratings(path: Path, rows: int, *, mixed: bool = False) -> int:
    """Write a synthetic `ratings.csv`; gives its number of rows.

    Counts per user and per movie are as unequal as MovieLens', and many ratings of a user have the
    same time. With `mixed`, pieces of a million rows are shuffled.
    """
    rng = np.random.default_rng(0)
    users = max(rows // PER_USER, 1)
    lengths = np.clip(rng.lognormal(4.2, 1.1, users), 20, 5000)
    lengths = np.maximum(lengths * (TWICE * rows / lengths.sum()), 1).astype(np.int64)
    starts = rng.integers(789_652_009, 1_427_784_002, users)
    total = 0
    schema = pa.schema([("userId", pa.int64()), ("movieId", pa.int64()), ("rating", pa.float64()),
                        ("timestamp", pa.int64())])  # fmt: skip
    with pa_csv.CSVWriter(path, schema) as writer:
        ends = np.searchsorted(np.cumsum(lengths), np.arange(PIECE, rows + PIECE, PIECE))
        for first, last in zip([0, *ends[:-1] + 1], ends + 1, strict=True):
            own = np.repeat(np.arange(first, min(last, users)), lengths[first:last])
            movies = (MOVIES * rng.random(len(own)) ** 3).astype(np.int64)
            key = np.unique(own * MOVIES + movies)  # a user rates a movie once
            own, movies = key // MOVIES, key % MOVIES + 1
            time = starts[own] + rng.integers(0, SESSION, len(own))
            rating = rng.integers(1, 11, len(own)) / 2
            found = [own + 1, movies, rating, time]
            if mixed:
                order = rng.permutation(len(own))
                found = [column[order] for column in found]
            writer.write_table(pa.table(found, schema=schema))
            total += len(own)
    return total


def _table(found: dict[str, Run], rows: int, size: int) -> str:
    copy, ours = found.values()
    lines = [
        f"{rows:,} rows, {size / 1e9:.2f} GB of CSV; {processor()}",
        "| way | wall s | CPU s | peak GiB | output GB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, run in found.items():
        lines.append(f"| {name} | {run.wall:.2f} | {run.cpu:.2f} | {run.peak / (1 << 30):.2f} |"
                     f" {run.written / 1e9:.2f} |")  # fmt: skip
    wall, cpu = ours.wall / copy.wall, ours.cpu / copy.cpu
    met = "met" if wall <= AIM and ours.peak <= MOST_BYTES else "missed"
    lines.append(
        f"\nwall {wall:.2f}, CPU {cpu:.2f} of the copy's; aim: wall {AIM} and 2 GiB, {met}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
