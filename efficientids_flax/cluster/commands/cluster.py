"""The command `cluster`: item vectors in, a clustering and what it is like out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from efficientids_flax.cluster.methods import METHODS
from efficientids_flax.cluster.points import METRICS
from efficientids_flax.commands import command, echo
from efficientids_flax.commands.options import choice, count
from efficientids_flax.commands.options import data_dir as data_dir_option
from efficientids_flax.commands.options import num_items as num_items_option
from efficientids_flax.commands.options import overwrite as overwrite_option

if TYPE_CHECKING:
    from efficientids_flax.cluster.build import Clustered, ClusterOptions
    from efficientids_flax.cluster.sources import Source

SOURCES = ("embeddings", "data_dir", "checkpoint", "num_items")


@command("cluster")
@click.option("--method", required=True, type=click.Choice(list(METHODS)), help="How.")
@click.option("--embeddings", metavar="FILE", help="Vectors [I, E], .npy or the original's text.")
@data_dir_option
@click.option("--checkpoint", metavar="OUT", help="A converted recommender.")
@num_items_option
@click.option(
    "--out", metavar="FILE", help="Output, .npz or .safetensors (default: DIR/clustering.npz)."
)
@click.option("--into", metavar="NEW", help="With --checkpoint: write the model with new clusters.")
@click.option("--pickle", "pickled", metavar="FILE", help="Also write the original's pickles.")
@click.option("--plot", "picture", metavar="FILE", help="Plot the clusters, .png or .svg.")
@count("--clusters", "Number of clusters (default: square root of the items).")
@count("--max-size", "Most items of a cluster.")
@click.option("--shortlist", type=click.IntRange(min=0), default=0,
              help="The first N items get clusters of their own.")  # fmt: skip
@choice("--rank", ("id", "count"), "First are the lowest ids, or the most frequent items.", "id")
@choice("--metric", tuple(METRICS), "Distance; cosine scales vectors to length one.", "l2")
@count("--seed", "Random seed.", 0, least=0)
@choice(
    "--nonfinite", ("error", "spread"), "Vectors with NaN: refuse, or treat as missing.", "error"
)
@overwrite_option
def cluster(as_json: bool, **given: Any) -> None:
    """Group the items of a catalogue in clusters.

    The vectors come from a file, from prepared data, or from a model's item table. Each item is in
    one cluster, and no cluster is empty. --into writes a trained model with new clusters: its item
    table stays, its cluster table is computed again.
    """
    _check(given)
    out = _outputs(given)
    from efficientids_flax.cluster.build import ClusterOptions

    options = ClusterOptions(
        given["method"], given["clusters"], given["max_size"], given["shortlist"],
        given["metric"], given["seed"], given["nonfinite"] == "spread",
    )  # fmt: skip
    if given["into"] is not None:
        from efficientids_flax.cluster.carry_on import recluster

        made, name = recluster(given["checkpoint"], given["into"], options), given["checkpoint"]
    else:
        source = _source(given)
        if source.embeddings is None and METHODS[options.method].vectors is not None:
            raise ValueError(
                f"{source.name}: has no embeddings.npy, which {options.method} needs; `efficientids"
                " embed` makes one"
            )
        made, name = _made(source, options), source.name
    _write(made, out, given["overwrite"])
    told = {name: str(path) for name, path in out.items()}
    about = {"source": name, **made.summary.to_dict(), "seed": given["seed"],
             "catalogue": made.clustering.catalogue, "written": told}  # fmt: skip
    if given["into"] is not None:
        about["model"] = given["into"]
    places = ", ".join([*([given["into"]] if given["into"] else []), *told.values()])
    echo(as_json, about, f"{places}: {made.clustering.summary()}\n{made.summary.text()}")


def _check(given: dict[str, Any]) -> None:
    """Raise `UsageError` for options that do not go together."""
    present = [name for name in SOURCES if given[name] is not None]
    if present not in (["embeddings"], ["data_dir"], ["embeddings", "data_dir"], ["checkpoint"],
                       ["num_items"]):  # fmt: skip
        raise click.UsageError(
            "give --embeddings, --data-dir (or both), --checkpoint or --num-items"
        )
    if given["into"] is not None and present != ["checkpoint"]:
        raise click.UsageError("--into goes with --checkpoint")
    if given["rank"] == "count" and given["data_dir"] is None:
        raise click.UsageError("--rank count goes with --data-dir, which has the counts")
    if present == ["num_items"] and METHODS[given["method"]].vectors is not None:
        raise click.UsageError(f"{given['method']} needs vectors: --embeddings FILE or the like")
    if given["out"] is None and given["into"] is None and given["data_dir"] is None:
        raise click.UsageError("--out FILE is missing")


def _outputs(given: dict[str, Any]) -> dict[str, Path]:
    """What is to be written: 'clustering', 'pickle', 'plot' -> file; nothing is computed in vain.

    Raises:
        UsageError: a name of another kind.
        FileExistsError: one is there.
        FileNotFoundError: its folder is not.
    """
    from efficientids_flax.core.clustering import suffix_problem

    clustering = given["out"]
    if clustering is None and given["into"] is None:
        clustering = Path(given["data_dir"]) / "clustering.npz"
    if clustering is not None and (problem := suffix_problem(clustering)) is not None:
        raise click.UsageError(problem)
    named = {"clustering": clustering, "pickle": given["pickled"], "plot": given["picture"]}
    found = {name: Path(file) for name, file in named.items() if file is not None}
    for file in found.values():
        if file.exists() and not given["overwrite"]:
            raise FileExistsError(f"{file}: exists already; --overwrite replaces it")
        if not file.absolute().parent.is_dir():
            raise FileNotFoundError(f"{file.parent}: no such directory; make it first")
    return found


def _source(given: dict[str, Any]) -> Source:
    from efficientids_flax.cluster import sources

    if given["checkpoint"] is not None:
        return sources.of_model(given["checkpoint"])
    if given["data_dir"] is not None:
        by_count = given["rank"] == "count"
        return sources.of_directory(given["data_dir"], given["embeddings"], by_count=by_count)
    if given["embeddings"] is not None:
        return sources.of_file(given["embeddings"])
    return sources.of_items(given["num_items"])


def _made(source: Source, options: ClusterOptions) -> Clustered:
    from efficientids_flax.cluster.build import cluster_items

    try:
        return cluster_items(
            source.embeddings, options, num_items=source.num_items, ranks=source.ranks,
            catalogue=source.catalogue,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from error


def _write(made: Clustered, out: dict[str, Path], overwrite: bool) -> None:
    if "plot" in out:  # first, as it may fail for want of a package
        from efficientids_flax.cluster.plot import save_plot

        save_plot(made.summary, out["plot"])
    if "pickle" in out:
        made.clustering.save_pickle(out["pickle"], overwrite=overwrite)
    if "clustering" in out:
        made.clustering.save(out["clustering"], overwrite=overwrite)
