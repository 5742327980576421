"""Finds the published experiments that a tree may come from, and the settings they agree on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters.errors import MappingError
from converters.paxml.experiments.layouts import LAYOUTS
from converters.paxml.experiments.row import Experiment
from converters.paxml.experiments.shipped import SHIPPED
from converters.paxml.infer import Facts, Published
from efficientids_flax.config.record import unknown_key
from efficientids_flax.settings import EXPERIMENT, setting_text

EXPERIMENTS: Mapping[str, Experiment] = {row.name: row for row in (*SHIPPED, *LAYOUTS)}
"""Name -> row, in the order of the table."""
SHOWN = 3  # names that a sentence lists before it counts the rest


@dataclass(frozen=True)
class Evidence:
    """What a checkpoint shows besides the names and shapes of its parameters.

    Attributes:
        step: its step.
        step_shape: shape of the leaf `step`; None if there is none.
        dtypes: dtypes of the floating parameters.
        optimizer: name of the optimizer whose states it holds; None without any.
    """

    step: int | None
    step_shape: tuple[int, ...] | None
    dtypes: frozenset[str]
    optimizer: str | None


def named(name: str) -> Experiment:
    """Look up an experiment.

    Raises:
        MappingError: there is none of this name.
    """
    if name not in EXPERIMENTS:
        what = unknown_key(name, EXPERIMENTS).replace("unknown key", "no such experiment")
        raise MappingError(f"--experiment {what}; --list-experiments shows all")
    return EXPERIMENTS[name]


def chosen(row: Experiment, tree: Facts, notes: list[str]) -> Published:
    """Settings of the experiment that the user named for a tree.

    Args:
        row: the experiment.
        tree: facts about the parameters.
        notes: receives a note if the sizes differ.

    Raises:
        MappingError: the parameters are not those of such a model, whatever its sizes.
    """
    against = _unlike(row, tree)
    if against:
        told = "; ".join(f"{key} is {was}, not {says!r}" for key, (was, says) in against.items())
        raise MappingError(f"--experiment {row.name}: the tree is of another model: {told}")
    others = contradicted(tree, row.size)
    if others:
        sizes = ", ".join(f"{key} {was}, not {says}" for key, (was, says) in others.items())
        notes.append(f"--experiment {row.name}: the sizes differ ({sizes}); its settings are used")
    return Published(f"{EXPERIMENT} {row.name}", _model(row, sized=not others), row.whole_learner)


def recognised(tree: Facts, evidence: Evidence, notes: list[str]) -> Published | None:
    """Settings that all experiments agree on that the tree may come from.

    Args:
        tree: facts about the parameters.
        evidence: what else the checkpoint shows.
        notes: receives which experiments fit, on what they differ, or which are similar.

    Returns:
        The common settings; None if no experiment fits in its leaves and in all other marks.
    """
    near = [row for row in EXPERIMENTS.values() if not _unlike(row, tree)]
    found = [row for row in near if _marks(row, tree, evidence)]
    # If rows of one layout fit whatever their sizes, the sizes may show which of them it is.
    for keys in (lambda row: row.size, lambda row: {"vocab_size": row.size["vocab_size"]}):
        found = [row for row in found if not contradicted(tree, keys(row))] or found
    if not found:
        if near:
            kinds = {id(row.model): row for row in reversed(near)}
            names = _names(sorted(kinds.values(), key=list(EXPERIMENTS.values()).index))
            notes.append(
                f"its leaves are those of {names} too, but no other mark of them is there (sizes;"
                " dtype and step of a converter): if it is one, --experiment NAME takes its"
                " settings"
            )
        return None
    models = [_model(row, sized=not contradicted(tree, row.size)) for row in found]
    model, learner = _agreed(models), _agreed([row.whole_learner for row in found])
    sources = ", ".join(dict.fromkeys(row.source for row in found))
    notes.append(
        f"recognised as {_names(found)} ({sources}; Praxis {found[0].praxis}) by its"
        f" {found[0].recognised_by}: their settings are taken{_differing(models)}"
    )
    return Published(f"{EXPERIMENT} {_names(found)}", model, learner)


def contradicted(tree: Facts, claims: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """Key -> (what the tree has, what is claimed), for claims that the tree disproves."""
    found: dict[str, tuple[str, Any]] = {}
    for key, value in claims.items():
        fact, outer = tree.known.get(key), tree.known.get(key.rpartition(".")[0])
        never = tree.excluded.get(key)
        parts = [place for place in tree.known if place.startswith(f"{key}.")]
        if fact is not None and fact.sure and fact.value != value:
            found[key] = repr(fact.value), value
        elif never is not None and never.value == value:
            found[key] = f"another ({never.where})", value
        elif outer is not None and outer.sure and outer.value is None:
            found[key] = "none", value
        elif value is None and parts:
            found[key] = f"there ({tree.known[parts[0]].where})", value
    return found


def _unlike(row: Experiment, tree: Facts) -> dict[str, tuple[str, Any]]:
    """Contradictions to a row that do not depend on sizes; includes whether heads share keys."""
    found = contradicted(tree, row.structure)
    heads, shared = (tree.known.get(key) for key in ("num_heads", "num_kv_heads"))
    fewer = row.size["num_kv_heads"] < row.size["num_heads"]
    if heads and shared and (shared.value < heads.value) != fewer:
        told = f"{shared.value} of {heads.value} heads"
        found["num_kv_heads"] = told, "fewer than heads" if fewer else "as many as heads"
    return found


def _marks(row: Experiment, tree: Facts, evidence: Evidence) -> bool:
    """Whether a tree with a row's leaves also has the row's other marks, such as sizes or dtype."""
    trained = evidence.optimizer is not None
    if row.written_as is None:
        fits = not trained or evidence.optimizer == row.learner.get("name")
        return fits and not contradicted(tree, row.size)
    shape = row.step_shape
    return (
        not trained
        and evidence.step == 0
        and evidence.dtypes == {row.written_as}
        and (shape is None or shape == evidence.step_shape)
    )


def _model(row: Experiment, *, sized: bool) -> dict[str, Any]:
    return {**row.structure, **(row.if_sized if sized else {})}


def _agreed(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that all have, with the same value."""
    first, *rest = settings
    return {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in rest)
    }


def _differing(models: Sequence[Mapping[str, Any]]) -> str:
    """The settings on which models differ, as the end of a sentence."""
    keys = dict.fromkeys(key for model in models for key in model)
    told = []
    for key in keys:
        values = list(
            dict.fromkeys(setting_text(key, model[key]) for model in models if key in model)
        )
        if len(values) > 1 or any(key not in model for model in models):
            told.append(" or ".join(values))
    return f", but for what they differ on: {', '.join(told)}" if told else ""


def _names(rows: Sequence[Experiment]) -> str:
    """The first names, and the number of further ones."""
    names = [row.name for row in rows]
    if len(names) > SHOWN + 1:
        names = [*names[:SHOWN], f"{len(names) - SHOWN} more"]
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
