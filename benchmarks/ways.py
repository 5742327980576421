"""Other ways to convert a checkpoint, to compare with ours; each is a separate process.

Each writes the arrays of one step in a form that Orbax opens, with Orbax's codec, and leaves the
optimizer's values unchanged, so ours does more work.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from efficientids_flax.tree import unflatten

COMPRESSOR = {"id": "zstd", "level": 1}  # Orbax's


def copy_with_tensorstore(state: Path, output: Path) -> None:
    """Read and write whole arrays one by one, with TensorStore alone."""
    import tensorstore as ts

    for name, kvstore in _arrays(state).items():
        source = ts.open({"driver": "zarr", "kvstore": kvstore}, read=True).result()
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": f"{output}/{name}/"},
            "metadata": {
                "chunks": list(source.shape),
                "compressor": COMPRESSOR,
                "dtype": source.dtype.numpy_dtype.str,
                "fill_value": None,
                "shape": list(source.shape),
            },
        }
        target = ts.open(spec, create=True).result()
        target.write(source.read().result()).result()


def restore_then_save(state: Path, output: Path) -> None:
    """Read everything into memory as NumPy arrays, then `PyTreeCheckpointer().save`.

    Orbax restores OCDBT as NumPy arrays. It cannot open zarr directories at all, so TensorStore
    reads those, all at once.
    """
    import jax
    import numpy as np
    import orbax.checkpoint as ocp
    import tensorstore as ts

    checkpointer = ocp.PyTreeCheckpointer()
    if (state / "manifest.ocdbt").exists():
        found: Any = checkpointer.metadata(state)
        arguments = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), found.item_metadata.tree
        )
        restored = checkpointer.restore(state, restore_args=arguments)
    else:
        opened = {
            name: ts.open({"driver": "zarr", "kvstore": kvstore}, read=True)
            for name, kvstore in _arrays(state).items()
        }
        reads = {name: array.result().read() for name, array in opened.items()}
        values = {name: read.result() for name, read in reads.items()}
        restored = unflatten(values, separator=".")
    checkpointer.save(output.absolute(), restored)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "tensorstore": copy_with_tensorstore,
    "naive": restore_then_save,
}


def _arrays(state: Path) -> dict[str, dict[str, Any]]:
    """Name -> key-value store of each array of a state."""
    if (state / "manifest.ocdbt").exists():
        base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{state}/"}}
        tree = json.loads((state / "_METADATA").read_text())["tree_metadata"].values()
        names = [
            ".".join(part["key"] for part in entry["key_metadata"])
            for entry in tree
            if not entry["value_metadata"]["skip_deserialize"]
        ]
        return {name: base | {"path": f"{name}/"} for name in names}
    return {
        place.name: {"driver": "file", "path": f"{place}/"}
        for place in sorted(state.iterdir())
        if place.is_dir()
    }


@click.command()
@click.argument("way", type=click.Choice(list(WAYS)))
@click.argument("state", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
def main(way: str, state: Path, output: Path) -> None:
    """Carry the arrays in STATE over to OUTPUT."""
    WAYS[way](state, output)


if __name__ == "__main__":
    main()
