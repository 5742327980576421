"""Compare recommenders on the same split, each tuned on the validation data with the same budget.

    python examples/movielens/compare.py --config examples/movielens/run.yaml --out build/movielens

Tries each of the settings below once for each method, and tests the one with the best nDCG@10 on
the validation data; methods that learn are tested with three seeds. Ranks the whole catalogue,
without the films that a user has watched. Results are kept in `runs.jsonl`: if the script runs
again, it continues from there.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
import jax.numpy as jnp
import numpy as np
import yaml
from baselines import item_knn, popularity

from efficientids_flax.core.metrics import ranking_sums
from efficientids_flax.data.prepared import open_prepared
from efficientids_flax.data.rows import Sequences
from efficientids_flax.train import train
from efficientids_flax.train.run.file_config import built

Settings = dict[str, Any]
Metrics = dict[str, float]
Scores = Callable[..., np.ndarray]
NAMES = ("recall_at_10", "ndcg_at_10", "mrr_at_10")
SEEDS = (0, 1, 2)
GRID = [{"model.dropout": dropout} for dropout in (0.2, 0.4)]
FULL = {"model.full_softmax": True, "model.num_clusters": None}


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        settings: settings to try.
        scores: scoring function of a method that is not trained; None for a trained one.
        fixed: settings of a trained method that override those of the file.
    """

    settings: list[Settings]
    scores: Scores | None = None
    fixed: Settings = field(default_factory=dict)


METHODS = {
    "popularity": Method([{}], popularity),
    "ItemKNN": Method([{"neighbors": 20, "decay": decay} for decay in (0.9, 1.0)], item_knn),
    "full softmax (as SASRec)": Method(GRID, fixed=FULL),
    "hierarchical softmax": Method(GRID),
}


class Runs:
    """Results with a configuration, by method, settings and seed, stored in a file."""

    def __init__(self, file: Path, config: Path) -> None:
        self.file, self.config = file, hashlib.sha256(config.read_bytes()).hexdigest()[:12]
        lines = file.read_text().splitlines() if file.exists() else []
        self.done = {self.key(**row["what"]): row["metrics"] for row in map(json.loads, lines)}

    @staticmethod
    def key(**what: Any) -> str:
        """The key of a run."""
        return json.dumps(what, sort_keys=True)

    def __call__(
        self, make: Callable[[Settings, int], Metrics], method: str, settings: Settings, seed: int
    ) -> Metrics:
        """The metrics of a run; runs it if that was not done yet."""
        what = {"method": method, "settings": settings, "seed": seed, "config": self.config}
        if (key := self.key(**what)) not in self.done:
            self.done[key] = make(settings, seed)
            with self.file.open("a") as lines:
                lines.write(json.dumps({"what": what, "metrics": self.done[key]}) + "\n")
            click.echo(f"{what}: {self.done[key]}", err=True)
        return self.done[key]


def learned(config: Mapping[str, Any], settings: Settings, seed: int) -> Metrics:
    """Train, and measure on both splits the checkpoint that is best on the validation data."""
    sections = {name: dict(values) for name, values in config.items()}
    for key, value in settings.items():
        section, name = key.split(".")
        sections[section][name] = value
    sections["data"]["seed"] = sections["training"]["seed"] = seed
    sections["training"] |= {"progress": "none", "plot": False, "tensorboard": False}
    sections["checkpoint"].pop("dir")  # then the best one is kept in memory
    result = train(built(sections))
    best = max(
        (row for row in result.history if "eval_ndcg_at_10" in row),
        key=lambda row: row["eval_ndcg_at_10"],
    )
    measured = {**best, **result.test}
    names = [f"{split}_{name}" for split in ("eval", "test") for name in NAMES]
    return {"step": int(best["step"]), **{name: float(measured[name]) for name in names}}


def counted(sequences: Sequences, scores: Scores, settings: Settings) -> Metrics:
    """Measure an untrained method on both splits."""
    found = {}
    splits: dict[str, Literal["valid", "test"]] = {"eval": "valid", "test": "test"}
    for name, split in splits.items():
        begins, ends = sequences.bounds(split)
        histories = [
            sequences.items[first:begin]
            for first, begin in zip(sequences.offsets[:, 0], begins, strict=True)
        ]
        seen = np.full((len(histories), max(map(len, histories))), -1, np.int32)
        for row, items in enumerate(histories):
            seen[row, : len(items)] = items
        assert np.all(ends == begins + 1), "leave-one-out has one item for each person"
        sums = ranking_sums(
            jnp.asarray(scores(sequences, histories, **settings))[:, None],
            jnp.asarray(sequences.items[begins])[:, None],
            jnp.ones((len(histories), 1)),
            exclude=jnp.asarray(seen),
        )
        values = sums.compute()
        found |= {f"{name}_{metric}": float(values[metric]) for metric in NAMES}
    return found


def table(config: Mapping[str, Any], runs: Runs) -> Iterator[dict[str, Any]]:
    """For each method, the best settings and the metrics of each seed on the test data."""
    sequences = open_prepared(config["data"]["dir"]).sequences()
    for name, method in METHODS.items():

        def made(settings: Settings, seed: int, method: Method = method) -> Metrics:
            if method.scores is not None:
                return counted(sequences, method.scores, settings)
            return learned(config, method.fixed | settings, seed)

        measured = partial(runs, made, name)

        tried = [measured(settings, SEEDS[0]) for settings in method.settings]
        best = method.settings[int(np.argmax([found["eval_ndcg_at_10"] for found in tried]))]
        seeds = SEEDS if method.scores is None else SEEDS[:1]
        yield {"method": name, "settings": best, "runs": [measured(best, seed) for seed in seeds]}


def written(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown: mean and, for several seeds, standard deviation."""
    lines = ["| method | Recall@10 | nDCG@10 | MRR@10 | settings |", "|---|---|---|---|---|"]
    for row in rows:
        cells = []
        for name in NAMES:
            values = [found[f"test_{name}"] for found in row["runs"]]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.3f}{spread}")
        told = ", ".join(f"{k.split('.')[-1]} {v:g}" for k, v in row["settings"].items())
        lines.append(" | ".join([f"| {row['method']}", *cells, f"{told or 'none'} |"]))
    return "\n".join(lines)


def drawn(rows: list[dict[str, Any]], file: Path) -> None:
    """A picture of the table: bars of the means, a dot for each seed."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    for panel, name in zip(panels, NAMES, strict=False):
        for place, row in enumerate(rows):
            values = [found[f"test_{name}"] for found in row["runs"]]
            panel.barh(place, np.mean(values), color=f"C{place}", alpha=0.6)
            panel.plot(values, [place] * len(values), "k.", markersize=5)
        panel.set_yticks(range(len(rows)), [row["method"] for row in rows])
        panel.set_xlabel({"recall_at_10": "Recall@10", "ndcg_at_10": "nDCG@10"}[name] + " on test")
        panel.invert_yaxis()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


@click.command(help=__doc__)
@click.option("--config", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
def compare(config: Path, out: Path) -> None:
    """The table on standard output, `comparison.png` and `runs.jsonl` in OUT."""
    out.mkdir(parents=True, exist_ok=True)
    rows = list(table(yaml.safe_load(config.read_text()), Runs(out / "runs.jsonl", config)))
    click.echo(written(rows))
    drawn(rows, out / "comparison.png")


if __name__ == "__main__":
    compare()
