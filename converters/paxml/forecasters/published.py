"""Public TimesFM checkpoints: their sizes, and the settings that no tree shows.

Sources: the model cards and `TimesFmHparams` of google-research/timesfm, releases 1.0 to 1.3.
"""

from collections.abc import Mapping
from typing import Any

from converters.errors import MappingError
from converters.paxml.infer import Facts, Published
from efficientids_flax.config.forecaster import DECILES
from efficientids_flax.config.record import unknown_key
from efficientids_flax.settings import EXPERIMENT
from efficientids_flax.text import table

SIZES = (
    "num_layers", "model_dims", "hidden_dims", "num_heads", "head_dim", "patch_length",
    "num_frequencies",
)  # fmt: skip
# fmt: off
PUBLIC: Mapping[str, tuple[tuple[int, ...], Mapping[str, Any]]] = {
    # name              L   D     F     N   K   P   frequencies
    "timesfm-1.0-200m": ((20, 1280, 1280, 16, 80, 32, 3), {
        "horizon_length": 128, "quantiles": DECILES, "use_positional_embedding": True,
        "context_length": 512,
    }),
    "timesfm-2.0-500m": ((50, 1280, 1280, 16, 80, 32, 3), {
        "horizon_length": 128, "quantiles": DECILES, "use_positional_embedding": False,
        "context_length": 2048,
    }),
}
"""Name -> (values of `SIZES`, settings)."""
# fmt: on


def listed_forecasters() -> list[dict[str, Any]]:
    """The rows of the table, for programs."""
    return [
        {"name": name, "sizes": dict(zip(SIZES, sizes, strict=True)), "model": dict(settings)}
        for name, (sizes, settings) in PUBLIC.items()
    ]


def forecasters_text() -> str:
    """The table as text, one line per forecaster."""
    rows: list[tuple[str, ...]] = [
        ("forecaster", "layers", "width", "heads", "patch", "horizon", "positions", "context")
    ]
    for name, (sizes, settings) in PUBLIC.items():
        own = dict(zip(SIZES, sizes, strict=True))
        cells = (
            own["num_layers"], own["model_dims"], f"{own['num_heads']}x{own['head_dim']}",
            own["patch_length"], settings["horizon_length"],
            "yes" if settings["use_positional_embedding"] else "no", settings["context_length"],
        )  # fmt: skip
        rows.append((name, *map(str, cells)))
    return table(rows)


def public(name: str) -> tuple[tuple[int, ...], Mapping[str, Any]]:
    """Look up a public checkpoint.

    Raises:
        MappingError: there is none of this name.
    """
    if name not in PUBLIC:
        what = unknown_key(name, PUBLIC).replace("unknown key", "no such forecaster")
        raise MappingError(f"--experiment {what}; known are {', '.join(PUBLIC)}")
    return PUBLIC[name]


def published(name: str | None, tree: Facts, notes: list[str]) -> Published | None:
    """Settings of the public checkpoint that the user named, or else that has the tree's sizes.

    Args:
        name: the checkpoint that the user named; None if none.
        tree: facts about the parameters, from `forecaster_facts`.
        notes: receives which checkpoint was recognised, or in which sizes it differs.

    Raises:
        MappingError: there is no checkpoint of this name.
    """
    found = {key: fact.value for key, fact in tree.known.items()}
    if name is not None:
        sizes, settings = public(name)
        own = dict(zip(SIZES, sizes, strict=True))
        other = [
            f"{key} {found.get(key)}, not {own[key]}" for key in own if found.get(key) != own[key]
        ]
        if other:
            notes.append(f"--experiment {name}: its sizes differ here ({', '.join(other)})")
        return Published(f"{EXPERIMENT} {name}", settings)
    for known, (sizes, settings) in PUBLIC.items():
        outputs = settings["horizon_length"] * (1 + len(settings["quantiles"]))
        if tuple(found.get(key) for key in SIZES) == sizes and found.get("outputs") == outputs:
            positions = "with" if settings["use_positional_embedding"] else "without"
            notes.append(
                f"the sizes are those of {known}: taken for it, {positions} positions, horizon"
                f" {settings['horizon_length']}, context {settings['context_length']}; a model of"
                " these sizes that was trained otherwise needs --set"
            )
            return Published(f"{EXPERIMENT} {known}", settings)
    return None
