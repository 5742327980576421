"""What a source says about a model, with what says so, and the sources' contradictions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from efficientids_flax.config.checks import SHARED


@dataclass(frozen=True)
class Fact:
    """One value of the configuration and what says so.

    Attributes:
        value: the value, as the configuration's `from_dict` takes it.
        where: the leaf and its shape, or the path in the dump.
        sure: it follows; otherwise it is the usual case (tree) or Praxis' default (dump).
    """

    value: Any
    where: str
    sure: bool = True


@dataclass
class Facts:
    """What one source says: dotted key of the configuration -> fact, and what contradicts itself.

    Attributes:
        known: key -> fact.
        excluded: key -> a value that it cannot have, with the reason as `where`.
        problems: sentences for people; any of them is an error.
        unread: key -> sentence; an error if no other source gives the key.
        notes: sentences for people that are no error.
        layers: what single layers (of a block) say where they differ, which goes before `known`.
    """

    known: dict[str, Fact] = field(default_factory=dict)
    excluded: dict[str, Fact] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    layers: dict[int, "Facts"] = field(default_factory=dict)

    def add(self, key: str, value: Any, where: str, *, sure: bool = True) -> None:
        """Adds a fact; a second, different one of the same key is a problem naming both."""
        before = self.known.get(key)
        if before is not None and before.value != value and before.sure and sure:
            self.problems.append(
                f"{key}: {before.where} gives {before.value!r}, {where} gives {value!r}"
            )
        elif before is None or sure:
            self.known[key] = Fact(value, where, sure)

    def put(self, prefix: str, other: "Facts") -> None:
        """Takes over what another source says, under keys that begin with `prefix`."""
        self.known.update({prefix + key: fact for key, fact in other.known.items()})
        self.excluded.update({prefix + key: fact for key, fact in other.excluded.items()})
        self.unread.update({prefix + key: text for key, text in other.unread.items()})
        self.problems += [prefix + sentence for sentence in other.problems]
        self.notes += other.notes
        for layer, own in other.layers.items():
            self.layers.setdefault(layer, Facts()).put(prefix, own)

    def of_layer(self, layer: int) -> "Facts":
        """The facts as one layer has them."""
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
        """The facts of the model: where layers differ, those of the first that says something."""
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
    """Add what single layers say: once where they agree, else to each layer's own facts.

    Args:
        facts: of the whole model.
        layers: by place in the block; a layer that does not say a key is not asked.
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
    """Whether two dotted keys are one, or one is a part of the other's record."""
    return key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.")


@dataclass(frozen=True)
class Published:
    """What published experiments say of a model and its learner.

    Attributes:
        origin: of these settings, `experiment NAME`.
        model: keys of `BackboneConfig` -> value.
        learner: fields of `OptimizerConfig` -> value; `name` is among them, if there are any.
    """

    origin: str
    model: Mapping[str, Any]
    learner: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Leaves:
    """The parameters below one place: relative path -> shape, without leading layer axes."""

    root: str
    shapes: Mapping[str, tuple[int, ...]]

    def where(self, leaf: str) -> str:
        """The leaf and its shape, for messages."""
        return f"{self.root}{leaf} {list(self.shapes[leaf])}"

    def __contains__(self, leaf: str) -> bool:
        return leaf in self.shapes

    def find(self, facts: Facts, leaf: str, rank: int) -> tuple[int, ...] | None:
        """Shape of a leaf of this rank; a leaf that is missing or of another rank is a problem."""
        shape = self.shapes.get(leaf)
        if shape is None:
            facts.problems.append(f"{self.root}{leaf}: missing")
        elif len(shape) != rank:
            facts.problems.append(f"{self.where(leaf)}: expected {rank} axes")
            return None
        return shape
