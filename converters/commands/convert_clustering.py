"""The command convert-clustering: a pickled clustering becomes a file that cannot run code."""

from __future__ import annotations

import click

from efficientids_flax.core.clustering import ClusteringError, ClusteringInfo, suffix_problem


def _checked_out(_context: click.Context, _parameter: click.Parameter, out: str) -> str:
    problem = suffix_problem(out)
    if problem is not None:
        raise click.BadParameter(problem)
    return out


@click.command("convert-clustering")
@click.argument("file")  # a missing one is bad input (exit 1), not bad usage
@click.argument("out", callback=_checked_out)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def convert_clustering(file: str, out: str, overwrite: bool, quiet: bool) -> None:
    """Convert the pickled clustering FILE to OUT, a .npz or .safetensors file.

    FILE holds four pickles, of NumPy or JAX arrays: cluster_assignments, cluster_indices,
    in_cluster_id and cluster_means. Nothing else in it is run, and the tables are checked against
    each other.
    """
    try:
        clustering = ClusteringInfo.from_pickle(file)
        clustering.save(out, overwrite=overwrite)
    except FileExistsError as error:
        raise click.ClickException(f"{error} --overwrite replaces it.") from error
    except (ClusteringError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    if not quiet:
        click.echo(f"{out}: {clustering.summary()}")
