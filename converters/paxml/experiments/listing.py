"""Prints the table of experiments, for people and for programs."""

from typing import Any

from converters.paxml.experiments.match import EXPERIMENTS
from efficientids_flax.text import table

COLUMNS: tuple[str, ...] = (
    "name", "layers", "width", "hidden", "heads", "words", "optimizer", "recognised by", "source",
)  # fmt: skip


def table_text() -> str:
    """The table as text, one line per experiment."""
    rows = [COLUMNS]
    for row in EXPERIMENTS.values():
        size = row.size
        heads = {size["num_heads"]: None, size["num_kv_heads"]: None}
        cells = (
            row.name, size["num_layers"], size["model_dims"], size["hidden_dims"],
            f"{'/'.join(map(str, heads))}x{size['head_dim']}", size["vocab_size"],
            row.learner.get("name", "none"), row.recognised_by,
            f"{row.source}, Praxis {row.praxis}",
        )  # fmt: skip
        rows.append(tuple(map(str, cells)))
    return table(rows)


def listed() -> list[dict[str, Any]]:
    """The rows of the table, for programs."""
    return [
        {
            "name": row.name,
            "source": row.source,
            "praxis": row.praxis,
            "sizes": row.size,
            "model": dict(row.model),
            "model_if_sized": dict(row.if_sized),
            "optimizer": dict(row.learner),
            "recognised_by": row.recognised_by,
        }
        for row in EXPERIMENTS.values()
    ]
