"""Names for OCDBT states of paxml 1.1.0, whose keys are positions instead of names.

Orbax 0.3.5 flattened Praxis' NestedMap by position: `opt_states.0.1.2.1.params...` is learner 0,
group 1, transform 2, field 1. The names of the groups are not stored, but they can be derived:
`no_prefix` sorts before `p#L#i-1`, and the counts of a group have the shape of its prefix. The
number of fields tells which state it is, and so what its fields are called.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from converters.paxml.names import NO_PREFIX, PARAMS

ADAFACTOR = ("count", "m", "m_scale", "vr", "vc", "v")


@dataclass
class _Node:
    """A place in the positional tree; a leaf has no children."""

    children: dict[str, "_Node"] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None  # of a leaf; None if the leaf is masked

    def variables(self, collections: Collection[str]) -> bool:
        """Whether this node holds variables by name (they may be masked)."""
        return any(key in collections for key in self.children)

    def counts(self, collections: Collection[str]) -> set[tuple[int, ...]]:
        """Shapes of the leaves below this node that belong to no variable."""
        if not self.children:
            return set() if self.shape is None else {self.shape}
        if self.variables(collections):
            return set()
        return set().union(*(child.counts(collections) for child in self.children.values()))


def is_positional(paths: Collection[str], collections: Collection[str] = (PARAMS,)) -> bool:
    """Whether some optimizer state has a number in place of its field's name."""
    for path in paths:
        keys = path.split("/")
        if keys[0] != "opt_states" or len(keys) < 2:
            continue
        end = next((i for i, key in enumerate(keys) if key in collections), len(keys))
        if keys[end - 1].isdigit() and end > 3:
            return True
    return False


def name_positions(
    shapes: Mapping[str, tuple[int, ...] | None], collections: Collection[str] = (PARAMS,)
) -> tuple[dict[str, str], list[str]]:
    """Map each positional path under `opt_states` to its canonical path.

    Args:
        shapes: positional path -> stored shape, None for masked leaves.
        collections: first keys under `mdl_vars`.

    Returns:
        (positional path -> canonical path, notes on fields that stay numbered).
    """
    root = _Node()
    for path, shape in shapes.items():
        node = root
        for key in path.split("/")[1:]:
            node = node.children.setdefault(key, _Node())
        node.shape = shape
    namer = _Namer(collections)
    for learner, node in root.children.items():
        start = f"opt_states/{learner}"
        groups = _groups(node, collections)
        if groups is None:
            namer.name(node, start, start, True)
            continue
        for position, key in groups.items():
            namer.name(node.children[position], f"{start}/{position}", f"{start}/{key}", True)
    return namer.renamed, namer.notes


def _groups(node: _Node, collections: Collection[str]) -> dict[str, str] | None:
    """Position -> name of each group of one learner; None if the learner has no groups."""
    if not _numbered(node):
        return None
    positions = sorted(node.children, key=int)
    inner = [child for key in positions for child in node.children[key].children.values()]
    if len(inner) < 2 or any(not child.children for child in inner):
        return None  # a learner's transforms hold leaves, a learner's groups hold transforms
    first, *rest = (node.children[key].counts(collections) for key in positions)
    if first != {()} or any(len(shapes) != 1 or shapes == {()} for shapes in rest):
        return None
    named = {positions[0]: NO_PREFIX}
    for position, shapes in zip(positions[1:], rest, strict=True):
        (shape,) = shapes
        sizes, axes = ".".join(map(str, shape)), ".".join(["i-1"] * len(shape))
        key = f"p#{sizes}#{axes}"
        if key in named.values():  # a group of the same shape with another sharding
            key = f"p#{sizes}#{axes.replace('i-1', f'sgroup{position}')}"
        named[position] = key
    return named


@dataclass
class _Namer:
    """Collects the new paths while it walks the states."""

    collections: Collection[str]
    renamed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def name(self, node: _Node, old: str, new: str, last: bool) -> None:
        """Rename all leaves below `node`; `last`: the node ends its group's chain of transforms."""
        if not node.children:
            self.renamed[old] = new
            return
        if node.variables(self.collections) or not _numbered(node):
            for key, child in node.children.items():
                self.name(child, f"{old}/{key}", f"{new}/{key}", False)
            return
        final = max(node.children, key=int)
        fields = _fields(node, self.collections, last)
        if fields is None and any(not child.children for child in node.children.values()):
            self.notes.append(f"{new}: a state of unknown kind; its fields are numbered")
        for key, child in node.children.items():
            name = fields[int(key)] if fields else key
            chain = fields is None and last and key == final
            self.name(child, f"{old}/{key}", f"{new}/{name}", chain)


def _fields(node: _Node, collections: Collection[str], last: bool) -> tuple[str, ...] | None:
    """Names of the fields of a state; None if it is a chain of states, or unknown."""
    kinds = ["none"] * (max(map(int, node.children)) + 1)
    for key, child in node.children.items():
        tree = child.variables(collections)
        kinds[int(key)] = "tree" if tree else "chain" if child.children else "leaf"
    if "chain" in kinds:
        return None
    if kinds == ["leaf"]:
        return ("count",)
    if kinds == ["tree"]:
        return ("trace",)
    if kinds[0] != "leaf" or "leaf" in kinds[1:]:
        return None
    if len(kinds) == 2:  # EMA is the last transform of its group, Lion is not
        return ("count", "ema") if last else ("count", "m")
    if len(kinds) == 3:
        return ("count", "m", "v")
    return ADAFACTOR if len(kinds) == len(ADAFACTOR) else None


def _numbered(node: _Node) -> bool:
    return bool(node.children) and all(key.isdigit() for key in node.children)
