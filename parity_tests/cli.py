"""The command check-parity: a converted checkpoint against a recording of the real PAXml."""

import json
from pathlib import Path

import click
import numpy as np

from converters.show import table
from efficientids_flax.config import BackboneConfig
from efficientids_flax.core.clustering import ClusteringError, ClusteringInfo
from efficientids_flax.load import load_converted
from parity_tests.compare import (
    compare_decoder,
    compare_gradients,
    compare_recommender,
    first_above,
)


@click.command("check-parity", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("out")  # a missing one is bad input (exit 1), not bad usage
@click.argument("recording")
@click.option("--clustering", metavar="FILE", help="Clustering file of a recommender.")
def check_parity(out: str, recording: str, clustering: str | None) -> None:
    """Compare the converted checkpoint OUT with RECORDING, an .npz of PAXml's input and output."""
    try:
        params, _, config = load_converted(out, optimizer=False)
        with np.load(recording) as file:
            recorded = {key: file[key] for key in file.files}
        places = ClusteringInfo.from_pickle(clustering) if clustering else None
    except (OSError, ValueError, ClusteringError) as error:
        raise click.ClickException(str(error)) from error
    if config.model is None:
        raise click.ClickException(f"{out}: config.json has no model, so that nothing can be run")
    if isinstance(config.model, BackboneConfig):
        found = compare_decoder(config.model, params, recorded)
    else:
        found = compare_recommender(config.model, places, params, recorded)
        found += compare_gradients(config.model, places, params, recorded, sources_of(out))
    rows = [("array", "difference", "allowed", "")]
    rows += [
        (d.name, f"{d.worst:.1e}", f"{d.tolerance:.0e}", "ok" if d.passes else "DIFFERS")
        for d in found
    ]
    click.echo(table(rows))
    worst = first_above(found)
    if worst is not None:
        raise click.ClickException(f"first differs at {worst.name}, by {worst.worst:.1e}")
    click.echo(f"{len(found)} arrays agree with the real PAXml")


def sources_of(out: str | Path) -> dict[str, str]:
    """Parameter path -> path in PAXml's variables, from a conversion's manifest."""
    leaves = json.loads((Path(out) / "manifest.json").read_text())["leaves"]
    return {
        leaf["target"].removeprefix("params/"): leaf["sources"][0].removeprefix("mdl_vars/")
        for leaf in leaves
        if leaf["target"].startswith("params/")
    }
