"""Sharding of every parameter and activation on a mesh, by one table of axis letters.

    mesh = make_mesh(fsdp=4, tensor=2)                      # the remaining devices are `data`
    params = load_converted(out, parameter_shardings(config, mesh)).params
    with jax.set_mesh(mesh):
        loss = jax.jit(step)(params, jax.device_put(batch, batch_sharding(mesh)))

The mesh has three axes: `data` shards the rows of the batch; `fsdp` shards rows of the batch too,
and the parameters; `tensor` shards heads, hidden widths, vocabulary and catalogue. An optional
fourth one, `expert`, shards the experts of a mixture, and outside of them rows of the batch. An
axis whose size is not divisible by that of a mesh axis is not sharded along it.

Letters: those of `efficientids_flax.parameters`; of activations also B batch, T and S time, W width
of queries and tables, M slots of a cluster, K experts of a token.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from efficientids_flax.parameters import Axis, ModelConfig, parameter_axes

AXES = ("data", "fsdp", "expert", "tensor")

# fmt: off
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "V": ("tensor",),  # words of the embedding and of the head
    "N": ("tensor",),  # heads
    "J": ("tensor",),  # heads of keys and values
    "F": ("tensor",),  # hidden width of the MLP and of an expert
    "I": ("tensor",),  # items
    "D": ("fsdp",),    # model width
    "E": ("fsdp",),    # item width
    "X": ("expert",),  # experts
}
ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "B": ("data", "fsdp", "expert"),
    "X": ("expert",),
    "V": ("tensor",),
    "N": ("tensor",),
    "J": ("tensor",),
    "F": ("tensor",),
    "I": ("tensor",),
}
# Inside a mixture, tokens are not split by `expert`, so that they reach the experts of all devices.
MIXTURE: Mapping[str, tuple[str, ...]] = {
    "B": ("data", "fsdp"),
    "X": ("expert",),
    "F": ("tensor",),
}
# fmt: on
Share = tuple[jax.Array | int, int]  # (index of a device, number of devices) along a split axis


def make_mesh(
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    devices: Sequence[Any] | None = None,
    *,
    expert: int = 1,
) -> Mesh:
    """A mesh over the given devices, by default all.

    Args:
        data, fsdp, tensor: sizes; one of them may be -1: all remaining devices.
        devices: devices of all processes; neighbours are adjacent on the last axis.
        expert: size of a fourth axis, before `tensor`; 1 leaves it out.

    Raises:
        ValueError: the sizes are invalid, or their product is not the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "fsdp": fsdp, "expert": expert, "tensor": tensor}
    if expert == 1:
        del sizes["expert"]
    wrong = [f"{name} = {size}" for name, size in sizes.items() if size != -1 and size < 1]
    free = [name for name, size in sizes.items() if size == -1]
    if wrong or len(free) > 1:
        raise ValueError(
            f"sizes of a mesh are at least 1, or -1 for one of them; found {', '.join(wrong)}"
            if wrong
            else f"only one size of a mesh may be -1; found {', '.join(free)}"
        )
    given = int(np.prod([size for size in sizes.values() if size != -1]))
    if free:
        sizes[free[0]] = len(devices) // given
    if int(np.prod(list(sizes.values()))) != len(devices):
        asked = " * ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"a mesh of {asked} does not make {len(devices)} devices")
    names, shape = tuple(sizes), tuple(sizes.values())
    if devices == jax.devices():
        return jax.make_mesh(shape, names, axis_types=(AxisType.Auto,) * len(names))
    grid = np.asarray(devices, dtype=object).reshape(shape)
    return Mesh(grid, names, axis_types=(AxisType.Auto,) * len(names))


def partition(
    axes: Iterable[Axis], rules: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> PartitionSpec:
    """The partition spec of an array.

    Args:
        axes: (letter, size) of each of its axes.
        rules: letter -> mesh axes, such as `PARAMETERS`; other letters are not sharded.
        sizes: sizes of the mesh axes.

    Returns:
        A spec in which every mesh axis occurs at most once; the first axis of the array that can
        use it gets it.
    """
    used: set[str] = set()
    spec = []
    for letter, size in axes:
        chosen: list[str] = []
        left = size
        for name in rules.get(letter, ()):
            if sizes.get(name, 1) > 1 and name not in used and left % sizes[name] == 0:
                chosen.append(name)
                left //= sizes[name]
        used |= set(chosen)
        spec.append(tuple(chosen) if len(chosen) > 1 else chosen[0] if chosen else None)
    return PartitionSpec(*spec)


def parameter_shardings(
    config: ModelConfig,
    mesh: Mesh,
    rules: Mapping[str, tuple[str, ...]] = PARAMETERS,
) -> Callable[[str, Any], NamedSharding]:
    """The sharding of each leaf of a model and of its training state.

    Args:
        config: configuration of the model.
        mesh: from `make_mesh`, or any mesh with these axis names.
        rules: axis letter -> mesh axes.

    Returns:
        `sharding(path, leaf)` as `load_converted` and `load_model` take it. A leaf of the optimizer
        state with the path and shape of a parameter is sharded like the parameter; other leaves
        (counts, factors) are replicated.
    """
    known = parameter_axes(config)
    sizes = dict(mesh.shape)

    def sharding(path: str, leaf: Any) -> NamedSharding:
        axes = _axes_of(path, known)
        if axes is None or tuple(size for _, size in axes) != tuple(leaf.shape):
            return NamedSharding(mesh, PartitionSpec())
        return NamedSharding(mesh, partition(axes, rules, sizes))

    return sharding


def _axes_of(path: str, known: Mapping[str, tuple[Axis, ...]]) -> tuple[Axis, ...] | None:
    """Axes of the parameter whose path ends this one ('state/optimizer/adam/m/<parameter>')."""
    keys = path.split("/")
    for start in range(len(keys)):
        if axes := known.get("/".join(keys[start:])):
            return axes
    return None


def shard_parameters(
    params: Any,
    config: ModelConfig,
    mesh: Mesh,
    rules: Mapping[str, tuple[str, ...]] = PARAMETERS,
) -> Any:
    """Put a tree of parameters, or of training state, onto a mesh; see `parameter_shardings`."""
    sharding = parameter_shardings(config, mesh, rules)

    def put(keys: Any, leaf: Any) -> jax.Array:
        path = "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in keys)
        return jax.device_put(leaf, sharding(path, leaf))

    return jax.tree_util.tree_map_with_path(put, params)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch by rows over `data`, `fsdp` and `expert`; the first axis must be B."""
    names = tuple(name for name in ACTIVATIONS["B"] if name in mesh.axis_names)
    return NamedSharding(mesh, PartitionSpec(names))


def constrain(x: jax.Array, axes: str) -> jax.Array:
    """Constrain the sharding of an activation on the mesh of `jax.set_mesh`; no-op without one.

    Args:
        x: any array.
        axes: letters of its axes, such as 'B T D'.

    Raises:
        ValueError: `axes` has more or fewer letters than `x` has axes.
    """
    letters = axes.split()
    if len(letters) != x.ndim:
        raise ValueError(f"axes '{axes}' do not fit an array of shape {x.shape}")
    spec = partition(zip(letters, x.shape, strict=True), ACTIVATIONS, _own_axes())
    if all(part is None for part in spec):
        return x
    return jax.lax.with_sharding_constraint(x, spec)


def each_device(
    function: Callable[..., jax.Array],
    arrays: tuple[Any, ...],
    axes: tuple[Any, ...],
    result: str,
    summed: Sequence[str],
) -> jax.Array:
    """Apply a function to each device's part of arrays, sharded by the rules of `MIXTURE`.

    Args:
        function: `function(shares, *arrays)`; `shares` has the device's share for each letter of
            `summed`. Results are summed over the devices that split these letters.
        arrays: trees of arrays.
        axes: the same trees, with the letters of the arrays' axes.
        result: letters of the result, which has the shape of the first array.
        summed: letters that the result does not have.

    Returns:
        The same as `function` without a mesh, with the share (0, 1) for each letter.
    """
    sizes = _own_axes()

    def specify(letters: str, array: jax.Array) -> PartitionSpec:
        return partition(zip(letters.split(), array.shape, strict=True), MIXTURE, sizes)

    specs = jax.tree.map(specify, axes, arrays)
    flat = jax.tree.leaves(specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
    split = {part for spec in flat for part in spec if part is not None}
    if not split:
        return function(dict.fromkeys(summed, (0, 1)), *arrays)
    names = {letter: MIXTURE[letter][0] for letter in summed if MIXTURE[letter][0] in split}

    def run(*parts: Any) -> jax.Array:
        shares: dict[str, Share] = dict.fromkeys(summed, (0, 1))
        for letter, name in names.items():
            shares[letter] = (jax.lax.axis_index(name), sizes[name])
        found = function(shares, *parts)
        return jax.lax.psum(found, tuple(names.values())) if names else found

    # check_vma cannot infer the axes of loops whose length depends on the rows of a device.
    mapped = jax.shard_map(
        run,
        in_specs=specs,
        out_specs=specify(result, arrays[0]),
        axis_names=set(sizes),
        check_vma=False,
    )
    return mapped(*arrays)


def _own_axes() -> dict[str, int]:
    """Sizes of the mesh axes of `jax.set_mesh` along which we may shard.

    Axes that the caller handles manually (shard_map) or types explicitly are excluded.
    """
    mesh = jax.sharding.get_abstract_mesh()
    return {
        name: mesh.shape[name]
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Auto and name in AXES
    }
