"""Placement of state and batches: on one device, on a mesh, or over several processes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from efficientids_flax.core.batch import ModelConfig, check_values
from efficientids_flax.sharding import batch_sharding, make_mesh, parameter_shardings
from efficientids_flax.tree import path_of


def default_mesh() -> Mesh | None:
    """A mesh that shards the rows of the batch over all devices; None if there is only one."""
    return make_mesh() if jax.device_count() > 1 else None


def state_shardings(state: Any, mesh: Mesh, config: ModelConfig | None) -> Any:
    """The sharding of each leaf of a training state.

    Args:
        state: arrays or their shapes.
        mesh: from `make_mesh`.
        config: the model's, for the table of its parameters. None: shard the largest axis of each
            leaf that `fsdp` divides.

    Returns:
        The same tree of shardings.
    """
    rule = parameter_shardings(config, mesh) if config is not None else _largest_axis(mesh)

    return jax.tree_util.tree_map_with_path(lambda keys, leaf: rule(path_of(keys), leaf), state)


def _largest_axis(mesh: Mesh) -> Any:
    count = mesh.shape["fsdp"]

    def rule(path: str, leaf: Any) -> NamedSharding:
        del path
        sizes = [size if size % count == 0 else 0 for size in leaf.shape]
        if count == 1 or len(sizes) < 2 or not max(sizes):
            return NamedSharding(mesh, PartitionSpec())
        spec: list[str | None] = [None] * len(sizes)
        spec[int(np.argmax(sizes))] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return rule


def of_each(
    function: Callable[[jax.Array], jax.Array], leaves: Mapping[str, Any]
) -> dict[str, Any]:
    """Path -> `function(leaf)` on the host, of arrays on devices; all processes must call it.

    Accelerators get all programs at once. On CPUs, several programs of which each waits for other
    devices could take all threads, and hang: there one runs after another.

    Args:
        function: jitted; its result is small.
        leaves: path -> array.
    """
    found: dict[str, Any] = {}
    for path, leaf in leaves.items():
        found[path] = function(leaf)
        if jax.default_backend() == "cpu":
            jax.block_until_ready(found[path])
    return jax.device_get(found)


class BatchPlacer:
    """Puts batches where the step wants them.

    Attributes:
        mesh: mesh of the run; None: default placement.
        config: configuration of the package's own models, to check values of batches on the host
            (jit would clip ids out of range); None: no check.
        processes: number of processes, each of which provides a share of the rows.
    """

    def __init__(self, mesh: Mesh | None, config: ModelConfig | None = None) -> None:
        self.mesh, self.config = mesh, config
        self.processes = jax.process_count()
        if mesh is not None:
            self._rows = batch_sharding(mesh)
            self._whole = NamedSharding(mesh, PartitionSpec())
            self._divisor = mesh.shape["data"] * mesh.shape["fsdp"]

    def __call__(self, batch: Mapping[str, Any]) -> Any:
        """A batch of this process' rows -> global arrays.

        Rows that do not divide among the devices are put on each of them, in one process.

        Raises:
            ValueError: they do not divide, and there are several processes; or ids out of range and
                the like, see `check_values`.
        """
        self.check(batch)
        if self.mesh is None:
            return batch
        return jax.tree.map(self._place, dict(batch))

    def check(self, batch: Mapping[str, Any]) -> None:
        """Raises ValueError if values are out of range, see `check_values`."""
        if self.config is not None:
            check_values(self.config, batch)

    def divides(self, rows: int) -> bool:
        """Whether so many rows of each process divide among the devices."""
        return self.mesh is None or rows * self.processes % self._divisor == 0

    def everywhere(self, batch: Mapping[str, Any]) -> Any:
        """A batch that all processes have whole -> global arrays, whole on each device."""
        self.check(batch)
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(self._whole, np.asarray(x)),
            dict(batch),
        )

    def _place(self, value: Any) -> jax.Array:
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            return value  # placed by the caller
        shape = np.shape(value)
        rows = shape[0] * self.processes if shape else 0
        if rows and rows % self._divisor == 0:
            if self.processes == 1:
                return jax.device_put(value, self._rows)
            return jax.make_array_from_process_local_data(self._rows, np.asarray(value))
        if self.processes == 1:
            return jax.device_put(value, self._whole)
        raise ValueError(
            f"batch: {rows} rows of all processes do not divide among {self._divisor} devices"
        )
