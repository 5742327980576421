"""Divides a plan into jobs and does one job: compute, write, read back, digest, tile by tile."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from converters.arrays import Array, Leaf, Reader, Region, Source, even_part, tile_regions
from converters.errors import CheckpointError
from converters.plan import PlannedLeaf
from converters.write.formats import Sink, Tile
from converters.write.verify import Digest, compare, is_checked
from converters.zarr import ZarrLeaf

SHARED = 1 << 16  # sources from this size, in bytes, are read once for all targets that share them
BUNDLE = 64  # small leaves that form one job

Record = dict[str, Any]  # what the manifest says about one leaf


@dataclass(frozen=True)
class Job:
    """Leaves that are written together because they are computed from the same source."""

    leaves: tuple[PlannedLeaf, ...]

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return sum(leaf.nbytes for leaf in self.leaves)


@dataclass(frozen=True)
class Settings:
    """How jobs are done.

    Attributes:
        limit: bytes of values that one tile may hold; a worker may need eight times as much.
        verify: 'full', 'sample' or 'none'.
        move_chunks: whether compressed chunks may be copied without decoding them.
    """

    limit: int
    verify: str
    move_chunks: bool = True


class ReaderCache:
    """The readers of one worker, one per leaf; keeps the last used, up to two tiles' bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._readers: dict[int, Reader] = {}  # by id: leaves of two checkpoints may share a path
        self._held: dict[int, int] = {}  # bytes that each reader may hold; last used comes last

    def __call__(self, leaf: Leaf) -> Reader:
        """The reader for `leaf`."""
        key = id(leaf)
        reader = self._readers.get(key) or leaf.reader(self._limit)
        self._held.pop(key, None)
        self._held[key] = min(math.prod(leaf.chunks) * leaf.spec.dtype.itemsize, self._limit)
        self._readers[key] = reader
        while len(self._held) > 1 and sum(self._held.values()) > 2 * self._limit:
            oldest = next(iter(self._held))
            del self._held[oldest], self._readers[oldest]
        return reader


def make_jobs(leaves: Sequence[PlannedLeaf]) -> list[Job]:
    """Group the leaves so that no large source is read twice; the largest jobs come first."""
    group_of: dict[int, int] = {}  # source leaf -> group
    groups: dict[int, list[PlannedLeaf]] = {}
    for number, leaf in enumerate(leaves):
        large = [id(s) for s in leaf.array.leaves() if s.spec.nbytes >= SHARED]
        known = sorted({group_of[source] for source in large if source in group_of})
        home = known[0] if known else number
        merged = [member for other in known[1:] for member in groups.pop(other)]
        groups.setdefault(home, []).extend([*merged, leaf])
        for member in merged:
            group_of.update((id(s), home) for s in member.array.leaves() if id(s) in group_of)
        group_of.update((source, home) for source in large)
    jobs = sorted((Job(tuple(group)) for group in groups.values()), key=lambda job: -job.nbytes)
    return sorted(_bundled(jobs), key=lambda job: -job.nbytes)


def _bundled(jobs: Sequence[Job]) -> list[Job]:
    """The jobs with small ones combined, because each job costs an entry in the journal."""
    small = [leaf for job in jobs if job.nbytes < SHARED for leaf in job.leaves]
    bundles = [small[start : start + BUNDLE] for start in range(0, len(small), BUNDLE)]
    large = [job for job in jobs if job.nbytes >= SHARED]
    return [*large, *(Job(tuple(bundle)) for bundle in bundles)]


def share(jobs: Sequence[Job], process: int, processes: int) -> list[Job]:
    """The jobs of one process: each job goes to the process that has the fewest bytes so far."""
    load = [0] * processes
    mine: list[Job] = []
    for job in jobs:
        taker = load.index(min(load))
        load[taker] += job.nbytes + 1
        if taker == process:
            mine.append(job)
    return mine


def do_job(
    job: Job, sink: Sink, settings: Settings, progress: Callable[[int], None]
) -> list[Record]:
    """Write the leaves of a job.

    Args:
        job: the leaves to write.
        sink: where they are written.
        settings: how they are written.
        progress: called with the bytes of each finished tile.

    Returns:
        One record per leaf, for the manifest.

    Raises:
        ConversionError: a source is damaged, or what was written cannot be read back.
    """
    records: list[Record] = []
    rest: list[PlannedLeaf] = []
    for leaf in job.leaves:
        record = _move(leaf, sink, settings) if settings.move_chunks else None
        if record is None:
            rest.append(leaf)
        else:
            records.append(record)
            progress(leaf.nbytes)
    return records + _compute(rest, sink, settings, progress)


def tile_shape(array: Array, limit: int) -> tuple[int, ...]:
    """Shape of a leaf's tiles; a band of tiles across all columns stays within `limit` bytes."""
    shape = list(array.tiles(limit))
    first, columns = _columns(array.shape, tuple(shape))
    size = math.prod(shape) * array.dtype.itemsize * columns
    if columns > 1 and size > limit:
        shape[first] = even_part(shape[first], max(shape[first] * limit // size, 1))
    return tuple(shape)


def _compute(
    leaves: Sequence[PlannedLeaf],
    sink: Sink,
    settings: Settings,
    progress: Callable[[int], None],
) -> list[Record]:
    """Compute and write leaves, in the order in which their sources are stored."""
    readers = ReaderCache(settings.limit)
    digests = [Digest(leaf.shape) for leaf in leaves]
    order: list[tuple[Any, int, Tile]] = []
    sources: dict[int, int] = {}
    for number, leaf in enumerate(leaves):
        shape = tile_shape(leaf.array, settings.limit)
        sink.create(leaf, shape)
        for index, region in tile_regions(leaf.shape, shape):
            home, place = leaf.array.origin(region)
            rank = sources.setdefault(id(home), len(sources))
            key = (rank, _chunk_of(home, place), tuple(part.start for part in place), number)
            order.append((key, number, Tile(shape, index, region)))
    order.sort(key=lambda entry: entry[0])
    for _, number, tile in order:
        leaf = leaves[number]
        values = leaf.array.read(tile.region, readers)
        digests[number].update(tile.region, values)
        sink.write(leaf, tile, values)
        if is_checked(leaf.target, settings.verify):
            compare(leaf.target, tile.region, values, sink.read(leaf, tile))
        progress(values.nbytes)
    return [
        _record(leaf, sink, settings, digest) for leaf, digest in zip(leaves, digests, strict=True)
    ]


def _record(leaf: PlannedLeaf, sink: Sink, settings: Settings, digest: Digest) -> Record:
    checked = is_checked(leaf.target, settings.verify)
    found = digest.sha256
    if found is None and checked:  # the tiles did not arrive in order: read the output again
        found = _digest_of(sink.stored(leaf), settings.limit).sha256
    return {
        **leaf.row(),
        "sha256": found,
        "nonfinite": digest.nonfinite,
        "verified": checked,
    }


def _move(leaf: PlannedLeaf, sink: Sink, settings: Settings) -> Record | None:
    """Copy the compressed chunks of an unchanged leaf; None if this is not possible."""
    array = leaf.array
    if not isinstance(array, Source) or not isinstance(array.leaf, ZarrLeaf):
        return None
    source = array.leaf
    if source.spec.stored_shape != source.spec.shape or source.swapped:
        return None
    stored = sink.take_chunks(leaf, source, settings.limit)
    if stored is None:
        return None
    checked = is_checked(leaf.target, settings.verify)
    digest = Digest(leaf.shape)
    if checked:
        try:
            digest = _digest_of(sink.stored(leaf), settings.limit)
        except CheckpointError:
            sink.compare_stored(leaf, stored)
            _digest_of(source, settings.limit)  # the copy is exact: let the error name the source
            raise
        sink.compare_stored(leaf, stored)
    return {
        **leaf.row(),
        "operation": leaf.operation + ", chunks moved undecoded",
        "sha256": digest.sha256 if checked else None,
        "stored_sha256": stored,
        "nonfinite": digest.nonfinite if checked else "not checked",
        "verified": checked,
    }


def _digest_of(leaf: Leaf, limit: int) -> Digest:
    """Digest of a stored leaf, read in C order if possible."""
    array = Source(leaf)
    shape = list(tile_shape(array, limit))
    # Read bands across all columns, so that they follow one another in C order.
    first, _ = _columns(array.shape, tuple(shape))
    shape = [*shape[: first + 1], *array.shape[first + 1 :]]
    if math.prod(shape) * array.dtype.itemsize > 2 * limit:
        shape = list(tile_shape(array, limit))
    digest = Digest(array.shape)
    reader = leaf.reader(limit)
    for _, region in tile_regions(array.shape, tuple(shape)):
        digest.update(region, reader.read(region))
    return digest


def _columns(shape: tuple[int, ...], tile: tuple[int, ...]) -> tuple[int, int]:
    """The first axis where a tile is longer than 1, and the number of tiles across later axes."""
    first = next((axis for axis, part in enumerate(tile) if part != 1), len(tile) - 1)
    pairs = list(zip(shape, tile, strict=True))[first + 1 :]
    return first, math.prod(-(-size // part) for size, part in pairs)


def _chunk_of(leaf: Leaf, region: Region) -> tuple[int, ...]:
    return tuple(part.start // chunk for part, chunk in zip(region, leaf.chunks, strict=True))
