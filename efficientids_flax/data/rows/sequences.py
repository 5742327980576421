"""Users' item sequences: one flat array of items, with offsets for each user.

Letters: N events of all users, U users, I items.
"""

from dataclasses import dataclass

import numpy as np

from efficientids_flax.digests import digest
from efficientids_flax.prepared_format import SPLITS, Split


@dataclass(frozen=True, eq=False)
class Sequences:
    """Items of each user, oldest first: those of training, then of validation, then of the test.

    Attributes:
        items: int32 [N], item ids in [0, I), user by user.
        offsets: int64 [U, 4]: where each split's events of a user begin, and where the last end.
        users: int [U], the number of each user.
        num_items: I.
        told: known digest of the sequences; None: it is computed from the arrays.

    Raises:
        ValueError: shapes do not fit, or items are outside [0, I).
    """

    items: np.ndarray
    offsets: np.ndarray
    users: np.ndarray
    num_items: int
    told: str | None = None

    def __post_init__(self) -> None:
        if self.offsets.ndim != 2 or self.offsets.shape != (len(self.users), len(SPLITS) + 1):
            raise ValueError(
                f"sequences: offsets {list(self.offsets.shape)} of {len(self.users)} users,"
                f" expected [U, {len(SPLITS) + 1}]"
            )
        if (wrong := np.flatnonzero((self.items < 0) | (self.items >= self.num_items))).size:
            raise ValueError(
                f"sequences: event {wrong[0]}: item {self.items[wrong[0]]} is outside of"
                f" [0, {self.num_items}), the catalogue; so are {len(wrong) - 1} more"
            )

    @property
    def digest(self) -> str:
        """A digest of the sequences."""
        return self.told or f"{digest(self.items)}{digest(self.offsets)}"

    def bounds(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """(begin, end) of each user's events of a split, int64 [U] each."""
        place = SPLITS.index(split)
        return self.offsets[:, place], self.offsets[:, place + 1]

    def count(self, split: Split) -> int:
        """Number of events of a split."""
        begin, end = self.bounds(split)
        return int(np.sum(end - begin))

    @classmethod
    def of_events(
        cls,
        users: np.ndarray,
        items: np.ndarray,
        splits: np.ndarray,
        num_items: int,
        told: str | None = None,
    ) -> "Sequences":
        """Make sequences from ordered events.

        Args:
            users: int [N], sorted.
            items: int [N], each user's oldest first.
            splits: int [N], 0 train, 1 valid, 2 test; never decreasing for a user.
            num_items, told: see `Sequences`.

        Raises:
            ValueError: an event is out of order; names it.
        """
        if not len(users) == len(items) == len(splits):
            raise ValueError(
                f"events: found {len(users)} users, {len(items)} items, {len(splits)} splits"
            )
        if (wrong := np.flatnonzero(users[1:] < users[:-1])).size:
            raise ValueError(
                f"event {wrong[0] + 1}: its user is below that of the event before; sort by user"
            )
        if (wrong := np.flatnonzero((splits < 0) | (splits >= len(SPLITS)))).size:
            raise ValueError(f"event {wrong[0]}: split {splits[wrong[0]]}, expected 0, 1 or 2")
        same = users[1:] == users[:-1]
        if (wrong := np.flatnonzero(same & (splits[1:] < splits[:-1]))).size:
            raise ValueError(
                f"event {wrong[0] + 1}: split {splits[wrong[0] + 1]} after {splits[wrong[0]]}: what"
                " is held out stands behind what is trained on"
            )
        starts = np.flatnonzero(np.concatenate([[len(users) > 0], ~same]))
        ends = np.append(starts, len(users))[1:]
        # Events of split s or later begin where the counts of the earlier ones end.
        person = np.repeat(np.arange(len(starts)), ends - starts)
        earlier = [np.bincount(person[splits < split], minlength=len(starts)) for split in (1, 2)]
        offsets = np.stack([starts, starts + earlier[0], starts + earlier[1], ends], axis=1)
        return cls(
            np.ascontiguousarray(items, np.int32),
            offsets.astype(np.int64),
            users[starts],
            num_items,
            told,
        )
