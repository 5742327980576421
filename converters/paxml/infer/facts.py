"""Facts: what one source says about a model, where it says so, and its contradictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from efficientids_flax.config.checks import SHARED


@dataclass(frozen=True)
class Fact:
    """One value of the configuration, and where it comes from.

    Attributes:
        value: the value, as the configuration's `from_dict` takes it.
        where: the leaf and its shape, or the path in the dump.
        sure: whether the source proves it; otherwise it is the usual case (tree) or Praxis' default
            (dump).
    """

    value: Any
    where: str
    sure: bool = True


@dataclass
class Facts:
    """What one source says: facts by dotted key of the configuration, and contradictions.

    Attributes:
        known: key -> fact.
        excluded: key -> a value that it cannot have; `where` gives the reason.
        problems: sentences; any of them is an error.
        unread: key -> sentence; an error unless another source gives the key.
        notes: sentences that are not errors.
        layers: number of a layer (in a block) -> its own facts if layers differ; they take
            precedence over `known`.
    """

    known: dict[str, Fact] = field(default_factory=dict)
    excluded: dict[str, Fact] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    layers: dict[int, "Facts"] = field(default_factory=dict)

    def add(self, key: str, value: Any, where: str, *, sure: bool = True) -> None:
        """Add a fact; if a sure one of the same key differs, add a problem that names both."""
        before = self.known.get(key)
        if before is not None and before.value != value and before.sure and sure:
            self.problems.append(
                f"{key}: {before.where} gives {before.value!r}, {where} gives {value!r}"
            )
        elif before is None or sure:
            self.known[key] = Fact(value, where, sure)

    def put(self, prefix: str, other: "Facts") -> None:
        """Take over the facts of another source, with `prefix` before their keys."""
        self.known.update({prefix + key: fact for key, fact in other.known.items()})
        self.excluded.update({prefix + key: fact for key, fact in other.excluded.items()})
        self.unread.update({prefix + key: text for key, text in other.unread.items()})
        self.problems += [prefix + sentence for sentence in other.problems]
        self.notes += other.notes
        for layer, own in other.layers.items():
            self.layers.setdefault(layer, Facts()).put(prefix, own)

    def of_layer(self, layer: int) -> "Facts":
        """The facts that apply to one layer."""
        own = self.layers.get(layer)
        if own is None:
            return self
        known = dict(self.known)
        for key, fact in own.known.items():
            for other in [other for other in known if related(key, other)]:
                del known[other]
            known[key] = fact
        excluded = {key: value for key, value in self.excluded.items() if key not in own.known}
        return Facts(known, excluded | own.excluded)

    def of_model(self) -> "Facts":
        """The facts for the whole model; if layers differ, the first layer with the key counts."""
        known = dict(self.known)
        first = self.layers[min(self.layers)].excluded if self.layers else {}
        for _, own in sorted(self.layers.items()):
            known |= {
                key: fact
                for key, fact in own.known.items()
                if not any(related(key, other) for other in known)
                and not (key in first and first[key].value == fact.value)
            }
        return Facts(known, self.excluded)


def gather(facts: Facts, layers: Mapping[int, Facts]) -> None:
    """Add the facts of single layers: to the model if all layers agree, else to each layer.

    Args:
        facts: facts of the whole model; receives the result.
        layers: number in the block -> facts; a layer without a key does not count as disagreeing.
    """
    for own in layers.values():
        facts.problems += [text for text in own.problems if text not in facts.problems]
        facts.notes += [text for text in own.notes if text not in facts.notes]
        facts.unread |= own.unread
    for key in dict.fromkeys(key for own in layers.values() for key in own.known):
        said = {layer: own.known[key] for layer, own in layers.items() if key in own.known}
        silent = (own.known for layer, own in layers.items() if layer not in said)
        apart = any(related(key, other) for known in silent for other in known) or any(
            key in own.excluded and own.excluded[key].value == fact.value
            for own in layers.values()
            for fact in said.values()
        )
        same = key.partition(".")[0] in SHARED or key == "moe.layers"
        values = [fact.value for fact in said.values()]
        if same or (not apart and all(value == values[0] for value in values)):
            for fact in said.values():
                facts.add(key, fact.value, fact.where, sure=fact.sure)
        else:
            for layer, fact in said.items():
                facts.layers.setdefault(layer, Facts()).known[key] = fact
    for key in dict.fromkeys(key for own in layers.values() for key in own.excluded):
        every = [own.excluded[key] for own in layers.values() if key in own.excluded]
        if len(every) == len(layers):
            facts.excluded[key] = every[-1]
            continue
        for layer, own in layers.items():
            if key in own.excluded:
                facts.layers.setdefault(layer, Facts()).excluded[key] = own.excluded[key]


def related(key: str, other: str) -> bool:
    """Whether two dotted keys are equal, or one is part of the record at the other."""
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


@dataclass(frozen=True)
class Published:
    """What published experiments say about a model and its learner.

    Attributes:
        origin: the origin of these settings, `experiment NAME`.
        model: keys of `BackboneConfig` -> value.
        learner: fields of `OptimizerConfig` -> value, including `name`; empty if unknown.
    """

    origin: str
    model: Mapping[str, Any]
    learner: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Leaves:
    """The parameters below one path: relative path -> shape without leading axes for layers."""

    root: str
    shapes: Mapping[str, tuple[int, ...]]

    def where(self, leaf: str) -> str:
        """The leaf and its shape, for messages."""
        return f"{self.root}{leaf} {list(self.shapes[leaf])}"

    def __contains__(self, leaf: str) -> bool:
        return leaf in self.shapes

    def find(self, facts: Facts, leaf: str, rank: int) -> tuple[int, ...] | None:
        """Shape of a leaf of this rank; if it is missing or has another rank, adds a problem."""
        shape = self.shapes.get(leaf)
        if shape is None:
            facts.problems.append(f"{self.root}{leaf}: missing")
        elif len(shape) != rank:
            facts.problems.append(f"{self.where(leaf)}: expected {rank} axes")
            return None
        return shape
