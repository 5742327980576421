"""Measures conversion against other ways to convert a checkpoint: time, CPU, memory, size.

    python -m benchmarks.convert --size 3GB --repeat 3 --layout zarr --layout ocdbt

Each run is a separate process. The ways take turns, round by round, and the median over the rounds
counts. No times are asserted; docs/reference/benchmarks.md has the targets.
"""

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.measure import PROGRAM, ROOT, Run, RunFailedError, measure, medians, size_of
from efficientids_flax.commands.options import Size
from efficientids_flax.stored.free_memory import available_memory

LAYOUTS = ("zarr", "ocdbt")
STATE = Path("checkpoints/checkpoint_00001000/state")
CONVERT = (sys.executable, "-c", PROGRAM, "convert")
RATIOS = ("wall / naive", "CPU / naive", "wall / cp")
NAIVE_MEMORY = 4  # memory of the naive way, as a multiple of the checkpoint's size
GIB = 1 << 30


@dataclass(frozen=True)
class Way:
    """One way to convert a checkpoint.

    Attributes:
        name: name in the table.
        command: the command without source and output.
        of_state: whether the source is the state directory instead of the job.
        options: arguments after source and output.
    """

    name: str
    command: tuple[str, ...]
    of_state: bool = False
    options: tuple[str, ...] = ()

    def line(self, job: Path, output: Path) -> list[str]:
        """The command line."""
        source = job / STATE if self.of_state else job
        return [*self.command, str(source), str(output), *self.options]


def ways(memory: str) -> dict[str, Way]:
    """All ways, by their name on the command line."""
    ours = ("--quiet", "--memory", memory, "--verify")
    other = (sys.executable, "-m", "benchmarks.ways")
    return {
        "none": Way("convert-paxml --verify none", CONVERT, options=(*ours, "none")),
        "full": Way("convert-paxml --verify full", CONVERT, options=(*ours, "full")),
        "identity": Way("convert-paxml --raw-optimizer --verify none", CONVERT,
                        options=(*ours, "none", "--raw-optimizer")),
        "tensorstore": Way("TensorStore, array by array", (*other, "tensorstore"), of_state=True),
        "naive": Way("Orbax, restore all then save", (*other, "naive"), of_state=True),
        "cp": Way("cp -r", ("cp", "-r"), of_state=True),
    }  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--size", type=Size(), multiple=True, default=["3GB"],
              help="Size of parameters and moments. Repeatable.")  # fmt: skip
@click.option("--leaves", type=int, help="Number of tiny leaves, instead of --size.")
@click.option("--layout", type=click.Choice(LAYOUTS), multiple=True, default=LAYOUTS,
              help="Repeatable.")  # fmt: skip
@click.option("--repeat", type=click.IntRange(min=1), default=3, help="Rounds.")
@click.option("--way", "chosen", type=click.Choice(list(ways(""))), multiple=True,
              help="Measure only these.")  # fmt: skip
@click.option("--memory", default="1GiB", help="Memory limit of convert-paxml.")
@click.option("--cold", is_flag=True, help="Empty the page cache before each run (root only).")
@click.option("--work-dir", type=click.Path(path_type=Path, file_okay=False),
              help="Where to make the checkpoints; a directory of temporary files otherwise."
              )  # fmt: skip
def main(
    size: tuple[int, ...], leaves: int | None, layout: tuple[str, ...], repeat: int,
    chosen: tuple[str, ...], memory: str, cold: bool, work_dir: Path | None,
) -> None:  # fmt: skip
    """Make a LLaMA-like PAXml checkpoint, bring it over in several ways and compare them."""
    if work_dir is not None:
        work_dir.mkdir(parents=True, exist_ok=True)
    taken = {name: way for name, way in ways(memory).items() if name in (chosen or ways(memory))}
    click.echo(_machine(cold))
    for nbytes in size if leaves is None else (0,):
        for kind in layout:
            with tempfile.TemporaryDirectory(prefix="benchmark-", dir=work_dir) as place:
                what = ["--leaves", str(leaves)] if leaves else ["--nbytes", str(nbytes)]
                job = Path(place).resolve() / "job"
                _make(job, [*what, "--layout", kind])
                stored = size_of(job / STATE)
                click.echo(f"\n{kind}, {stored / 1e9:.2f} GB on disk, median of {repeat}:\n")
                found = _measured(taken, job, stored, repeat, cold)
                click.echo("\n".join(table(taken, found)))


def table(taken: dict[str, Way], found: dict[str, Run]) -> list[str]:
    """Lines of a Markdown table, with ratios to the naive way and to `cp -r`."""
    naive, copy = found.get("naive"), found.get("cp")
    head = ("way", "wall s", "s to disk", "CPU s", "peak GiB", "output GB", *RATIOS)
    rows = [head, tuple("---" if not index else "---:" for index in range(len(head)))]
    for name, way in taken.items():
        run = found.get(name)
        if run is None:
            rows.append((way.name, "not run: too little memory", *[""] * (len(head) - 2)))
            continue
        figures = (run.wall, run.on_disk, run.cpu, run.peak / GIB, run.written / 1e9)
        ratios = (
            f"{run.wall / naive.wall:.2f}" if naive else "",
            f"{run.cpu / naive.cpu:.2f}" if naive else "",
            f"{run.wall / copy.wall:.1f}" if copy else "",
        )
        rows.append((way.name, *(f"{figure:.2f}" for figure in figures), *ratios))
    return [f"| {' | '.join(row)} |" for row in rows]


def _measured(
    taken: dict[str, Way], job: Path, stored: int, repeat: int, cold: bool
) -> dict[str, Run]:
    """The median run of each way, except those that need more memory than the machine has."""
    runs: dict[str, list[Run]] = {}
    output = job.parent / "output"
    for _ in range(repeat):
        for name, way in taken.items():
            if name == "naive" and (available_memory() or 0) < NAIVE_MEMORY * stored:
                continue
            try:
                run = measure(way.line(job, output), job, output, cold=cold)
            except RunFailedError as error:
                raise click.ClickException(str(error)) from error
            runs.setdefault(name, []).append(run)
            click.echo(f"{way.name}: {run.wall:.2f} s", err=True)
    return {name: medians(each) for name, each in runs.items()}


def _make(job: Path, arguments: Sequence[str]) -> None:
    """Make a checkpoint in another process, so that its memory does not count here."""
    command = [sys.executable, "-m", "benchmarks.checkpoints", str(job), *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


def _machine(cold: bool) -> str:
    """The machine and settings of the measurements."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"load {load:.1f} at the start, page cache {'cold' if cold else 'warm'}"
    )


if __name__ == "__main__":
    main()
