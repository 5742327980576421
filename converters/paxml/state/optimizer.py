"""Converts PAXml's `opt_states` to the states of an `optax.named_chain`.

Praxis keeps one state per learner. It is split into groups by the prefix over which variables are
stacked (`no_prefix`, `p#24#i-1`: praxis/optimizer_prefix_vectorization.py); each group is a tuple
of one state per transform. Here the groups are joined to one tree again, and the kind of each
transform is recognised by its fields.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from converters.arrays import Agreed, Array, Debias, Scaled, whole
from converters.errors import MappingError, OptimizerError
from converters.paxml.names import group_shape
from converters.paxml.state.slots import Slot, kind_of, transforms_of
from converters.rules import Mapped, Rule

RAW = "state/opt_states_raw/"

DRIVES_SCHEDULE = ("adam", "sharded_adafactor")  # the schedule uses the count of these
BIAS_CORRECTED = {("adam", "m"): "beta1", ("adam", "v"): "beta2"}
AS_STORED = "adam_bias_corrected"  # Adam's state with moments still divided by 1 - beta^count
SLOWEST = 0.9999  # no larger decay rate is in use

MapTree = Callable[[Mapping[str, Array]], Sequence[Mapped]]  # applies the parameters' rules


@dataclass
class ConvertedOptimizer:
    """The result of converting `opt_states`.

    Attributes:
        leaves: target leaves, below `state/`.
        ignored: (source path, reason) of the leaves that are left out.
        kinds: names of the states that were recognised, for the report.
        notes: what the user should know.
    """

    leaves: list[Mapped] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def convert_optimizer(
    arrays: Mapping[str, Array], map_tree: MapTree, betas: Mapping[str, float]
) -> ConvertedOptimizer:
    """Map an optimizer's state with the rules of the parameters that it belongs to.

    Args:
        arrays: leaf path below `opt_states` -> array.
        map_tree: maps a tree of parameters, or of one slot per parameter, with the parameters'
            rules.
        betas: `beta1` and `beta2`, as far as they are known.

    Returns:
        Target leaves, among them the moments in optax's form: `mu = m (1 - beta1^count)`. If a beta
        is unknown and matters, Adam's state is kept as stored, under the name `AS_STORED`.

    A factored or quantized state stays raw if a rule changes the axes of its variable.
    """
    result = ConvertedOptimizer()
    slots = {path: Slot.parse(path) for path in arrays}
    learners = sorted({slot.learner for slot in slots.values() if slot})
    for path, slot in slots.items():
        if slot is None:
            _keep_raw(result, path, arrays[path], "its place has an unknown form")
    for learner in learners:
        own = [slot for slot in slots.values() if slot and slot.learner == learner]
        place = "state/optimizer/" if learners == [0] else f"state/optimizer_{learner}/"
        _convert_learner(result, own, arrays, map_tree, betas, place)
    return result


def raw_optimizer(arrays: Mapping[str, Array]) -> ConvertedOptimizer:
    """Keep every leaf under its own name, below `state/opt_states_raw/`."""
    result = ConvertedOptimizer()
    for path, array in arrays.items():
        _keep_raw(result, path, array, "")
    return result


def _convert_learner(
    result: ConvertedOptimizer,
    slots: list[Slot],
    arrays: Mapping[str, Array],
    map_tree: MapTree,
    betas: Mapping[str, float],
    place: str,
) -> None:
    transforms = transforms_of(slots)
    kinds = {place: kind_of(place, transforms) for place in transforms}
    names = [name for name, _ in kinds.values() if name]
    # optax has no chain with two states of one name, or with two counts for the schedule.
    doubled = len(set(names)) != len(names) or len({*names} & {*DRIVES_SCHEDULE}) > 1
    # Pairs such as SGD's (trace, count) stay together: both stay raw if one of them is unknown.
    split = {
        place[1].partition("/")[0]
        for place, fields in transforms.items()
        if not kinds[place][0] and set(fields) != {"count"}
    }
    for transform, fields in transforms.items():
        members = [slot for slots_of_field in fields.values() for slot in slots_of_field]
        head, nested, _ = transform[1].partition("/")
        if set(fields) == {"count"} and nested:
            scheduled = any(leaf.target == f"{place}schedule/count" for leaf in result.leaves)
            if head in split or scheduled:
                for slot in members:
                    _keep_raw(result, slot.path, arrays[slot.path], "")
                continue
            # The count beside SGD's trace is the one that the schedule uses.
            _add_count(result, f"{place}schedule", [arrays[slot.path] for slot in members])
            continue
        if set(fields) == {"count"}:
            reason = "counts steps for a transform that keeps nothing else"
            result.ignored += [(slot.path, reason) for slot in members]
            continue
        name, renamed = kinds[transform]
        bare = [slot for field in renamed for slot in fields[field] if slot.variable is None]
        if not name or doubled or bare:
            cause = "two transforms of one kind" if name else f"fields {', '.join(sorted(fields))}"
            cause = f"{bare[0].path} belongs to no variable" if bare else cause
            for slot in members:
                _keep_raw(result, slot.path, arrays[slot.path], cause)
            continue
        result.kinds.append(name)
        counts = {slot.group: arrays[slot.path] for slot in fields.get("count", [])}
        rates, stored = betas, name
        if name == "adam" and not {"beta1", "beta2"} <= betas.keys():
            rates = None
            if not _correction_is_one(counts.values()):
                stored = AS_STORED
                result.notes.append(_not_undone(betas))
        try:
            mapped = {
                source: map_tree(_slot_values(name, source, fields[source], arrays, counts, rates))
                for source in renamed
            }
            for source, leaves in mapped.items():
                _check_axes(name, leaves, fields[source])
        except MappingError as error:
            if name != "sharded_adafactor":
                raise
            result.kinds.pop()
            for slot in members:
                _keep_raw(result, slot.path, arrays[slot.path], str(error))
            continue
        if counts:
            _add_count(result, f"{place}{stored}", list(counts.values()))
            if name in DRIVES_SCHEDULE and not nested:
                _add_count(result, f"{place}schedule", list(counts.values()))
        for source, target in renamed.items():
            for leaf in mapped[source]:
                undone = BIAS_CORRECTED.get((name, source)) if rates is not None else None
                ops = [f"times 1 - {undone}^count"] if undone else []
                ops += [leaf.rule.op] if leaf.rule.op else []
                rule = Rule(
                    f"{place}{stored}/{target}/{leaf.target}", leaf.rule.source, "; ".join(ops)
                )
                result.leaves.append(Mapped(rule.target, leaf.array, rule))


def _correction_is_one(counts: Iterable[Array]) -> bool:
    """Whether `1 - beta^count` is 1 in float32 for every beta in use.

    Before the first step, too, there is no correction: the moments have their initial value.
    """
    found = [
        int(value)
        for count in counts
        for value in count.read(whole(count.shape), lambda leaf: leaf.reader(1 << 20)).reshape(-1)
    ]
    return bool(found) and all(value == 0 or SLOWEST**value < 2.0**-25 for value in found)


def _not_undone(betas: Mapping[str, float]) -> str:
    lacking = [name for name in ("beta1", "beta2") if name not in betas]
    given = " ".join(f"--set {name}=..." for name in lacking)
    return (
        f"Adam's moments are kept as PAXml stored them, divided by 1 - beta^count (optimizer state "
        f"'{AS_STORED}'): {' and '.join(lacking)} are not known without model_params.txt. {given} "
        "makes them optax's (Praxis' defaults are 0.9 and 0.999), and so does "
        "trainer_from_converted(out, ..., beta1=..., beta2=...) later"
    )


def _add_count(result: ConvertedOptimizer, place: str, counts: list[Array]) -> None:
    """Add one counter in place of the counters of all groups, which must agree."""
    rule = Rule(f"{place}/count", "count of each group", "agree")
    result.leaves.append(Mapped(rule.target, Agreed(tuple(counts)), rule))


def _slot_values(
    name: str,
    source: str,
    slots: list[Slot],
    arrays: Mapping[str, Array],
    counts: Mapping[str, Array],
    betas: Mapping[str, float] | None,
) -> dict[str, Array]:
    """variable -> values of one field; the bias correction is undone if there is one and betas."""
    values = {slot.variable or "": arrays[slot.path] for slot in slots}
    beta_name = BIAS_CORRECTED.get((name, source))
    if beta_name is None or betas is None:
        return values
    factors = {group: Debias(count, betas[beta_name]) for group, count in counts.items()}
    scaled: dict[str, Array] = {}
    for slot in slots:
        factor = factors.get(slot.group)
        if factor is None:
            raise OptimizerError(f"{slot.path}: its group '{slot.group}' has no count")
        axes = tuple(range(len(factor.shape)))
        try:
            scaled[slot.variable or ""] = Scaled(arrays[slot.path], factor, axes)
        except ValueError as error:
            raise OptimizerError(f"{slot.path}: its group's count does not fit: {error}") from error
    return scaled


def _check_axes(name: str, leaves: Iterable[Mapped], slots: list[Slot]) -> None:
    """Raise `MappingError` if a rule changes axes by which a state is factored or quantized."""
    for leaf in leaves:
        if name != "sharded_adafactor" or not leaf.rule.op:
            continue
        sources = {source.spec.path for source in leaf.array.leaves()}
        # Axes for stacked layers, which come before the variable's own.
        leading = {len(group_shape(slot.group) or ()) for slot in slots if slot.path in sources}
        if len(leading) != 1 or not _only_leading(leaf.rule, leading.pop()):
            raise MappingError(
                f"{leaf.target}: '{leaf.rule.op}' would change the axes along which "
                "ShardedAdafactor factors and quantizes"
            )


def _only_leading(rule: Rule, leading: int) -> bool:
    """Whether a rule changes only the first `leading` axes."""
    for name, arguments in rule.steps:
        axis = int(arguments[0])
        if name == "stack" and axis <= leading:
            leading += 1
        elif (name == "unstack" and axis < leading) or (name == "merge" and axis + 1 < leading):
            leading -= 1
        else:
            return False
    return True


def _keep_raw(result: ConvertedOptimizer, path: str, array: Array, cause: str) -> None:
    target = RAW + path.removeprefix("opt_states/")
    rule = Rule(target, path)
    result.leaves.append(Mapped(target, array, rule))
    if cause:
        note = f"optimizer state kept as it is below {RAW}: {cause}"
        if note not in result.notes:
            result.notes.append(note)
        if "unknown" not in result.kinds:
            result.kinds.append("unknown")
