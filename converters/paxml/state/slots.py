"""Finds out what the parts of `opt_states` are: the slot of each leaf, and the kind of each state.

A state is recognised by its fields and its place, because most layouts store no type.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OPTAX_ADAM, OPTAX_SGD = frozenset({"count", "mu", "nu"}), frozenset({"trace"})

# Fields of a transform's state -> (name of the optax state, its fields). A state with `count` alone
# belongs to transforms that only count: Praxis' weight decay and l1/l2 regularizers.
KINDS: dict[frozenset[str], tuple[str, dict[str, str]]] = {
    frozenset({"count", "m", "v"}): ("adam", {"m": "mu", "v": "nu"}),
    OPTAX_ADAM: ("adam", {"mu": "mu", "nu": "nu"}),
    frozenset({"count", "m", "m_scale", "vr", "vc", "v"}): (
        "sharded_adafactor",
        {name: name for name in ("m", "m_scale", "vr", "vc", "v")},
    ),
    OPTAX_SGD: ("momentum", {"trace": "trace"}),
    frozenset({"count", "ema"}): ("ema", {"ema": "ema"}),
}
_PATH = re.compile(
    r"opt_states/(?P<learner>\d+)/(?:(?P<group>no_prefix|p[^/\d][^/]*)/)?"
    r"(?P<transform>\d+(?:/\d+)*)/(?P<field>[^/\d][^/]*)(?:/params/(?P<variable>.+))?"
)

Transforms = Mapping[tuple[int, str], Mapping[str, list["Slot"]]]  # see `transforms_of`


@dataclass(frozen=True)
class Slot:
    """One leaf of an optimizer's state, with the parts of its path."""

    path: str
    learner: int
    group: str
    transform: str
    field: str
    variable: str | None

    @classmethod
    def parse(cls, path: str) -> "Slot | None":
        """The slot at a leaf path; None if the path has another form."""
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        learner, group, transform, field, variable = found.groups()
        return cls(path, int(learner), group or "", transform, field, variable)


def optimizer_kinds(paths: Sequence[str]) -> list[str]:
    """Names of the optimizer states among leaf paths, in order; 'unknown' for others."""
    kinds: dict[str, None] = {}
    transforms = transforms_of([Slot.parse(path) for path in paths])
    for place, fields in transforms.items():
        if set(fields) != {"count"}:
            kinds[kind_of(place, transforms)[0] or "unknown"] = None
    return list(kinds)


def transforms_of(slots: Sequence[Slot | None]) -> dict[tuple[int, str], dict[str, list[Slot]]]:
    """(learner, transform) -> field -> slots of all groups, in order."""
    found: dict[tuple[int, str], dict[str, list[Slot]]] = {}
    for slot in slots:
        if slot is not None:
            fields = found.setdefault((slot.learner, slot.transform), {})
            fields.setdefault(slot.field, []).append(slot)
    return found


def kind_of(place: tuple[int, str], transforms: Transforms) -> tuple[str, dict[str, str]]:
    """Name of a transform's state in optax, and the names of its fields; '' if it has none.

    An optax chain inside a transform is only recognised as the pair that `optax.sgd` and
    `optax.adam`
    make: the state, and the count for the schedule of the learning rate. LAMB has the same states
    at other places, and the `ema` of `optax.adafactor` averages updates, not weights.
    """
    learner, transform = place
    fields = frozenset(transforms[place])
    found = KINDS.get(fields, ("", {}))
    head, nested, _ = transform.partition("/")
    if not nested:
        return ("", {}) if "mu" in fields else found
    chain = {
        other.removeprefix(f"{head}/"): set(transforms[number, other])
        for number, other in transforms
        if number == learner and other.startswith(f"{head}/")
    }
    pair = chain == {"0": set(fields), "1": {"count"}}
    return found if pair and fields in (OPTAX_ADAM, OPTAX_SGD) else ("", {})
