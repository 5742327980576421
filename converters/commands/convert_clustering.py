"""The command `convert-clustering`: a pickled clustering becomes a file that cannot run code."""

import click

from efficientids_flax.commands import command, echo
from efficientids_flax.commands.options import overwrite as overwrite_option


def _checked_out(_context: click.Context, _parameter: click.Parameter, out: str) -> str:
    from efficientids_flax.core.clustering import suffix_problem

    problem = suffix_problem(out)
    if problem is not None:
        raise click.BadParameter(problem)
    return out


@command("convert-clustering")
@click.argument("file")  # a missing one is bad input (exit 1), not bad usage
@click.argument("out", callback=_checked_out)
@overwrite_option
def convert_clustering(file: str, out: str, overwrite: bool, as_json: bool) -> None:
    """Convert the pickled clustering FILE to OUT, a .npz or .safetensors file.

    FILE holds four pickles of NumPy or JAX arrays: cluster_assignments, cluster_indices,
    in_cluster_id and cluster_means. No code in it is run, and the tables are checked against each
    other.
    """
    from efficientids_flax.core.clustering import ClusteringInfo

    clustering = ClusteringInfo.from_pickle(file)
    try:
        clustering.save(out, overwrite=overwrite)
    except FileExistsError as error:
        raise FileExistsError(f"{error} --overwrite replaces it.") from error
    about = {"output": out, "items": clustering.num_items, "clusters": clustering.num_clusters}
    echo(as_json, about, f"{out}: {clustering.summary()}", remark=True)
