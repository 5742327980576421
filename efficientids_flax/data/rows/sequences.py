"""What people have dealt with, in order: one flat array of items, and where each person begins.

Letters: N events of all people, U people, I items.
"""

from dataclasses import dataclass

import numpy as np

from efficientids_flax.digests import digest
from efficientids_flax.prepared_format import SPLITS, Split


@dataclass(frozen=True, eq=False)
class Sequences:
    """Items of people, oldest first; the first of each are to train on, the next to validate, ...

    Attributes:
        items: int32 [N], item ids in [0, I), person after person.
        offsets: int64 [U, 4]: where a person's events of each split begin, and where they end.
        users: int [U], the number of each person.
        num_items: I.
        told: letters that are the same for the same sequences; None: they are made of the arrays.

    Raises:
        ValueError: shapes that do not fit, or items outside of [0, I).
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
        """Letters that are the same for the same sequences."""
        return self.told or f"{digest(self.items)}{digest(self.offsets)}"

    def bounds(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """int64 [U] twice: where each person's events of a split begin and end."""
        place = SPLITS.index(split)
        return self.offsets[:, place], self.offsets[:, place + 1]

    def count(self, split: Split) -> int:
        """Events of a split."""
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
        """Sequences of events that stand in order.

        Args:
            users: int [N], sorted.
            items: int [N], of each user oldest first.
            splits: int [N], 0 train, 1 valid, 2 test; of each user they never go back.
            num_items, told: see `Sequences`.

        Raises:
            ValueError: naming the event that is out of order.
        """
        if not len(users) == len(items) == len(splits):
            raise ValueError(
                f"events: found {len(users)} users, {len(items)} items, {len(splits)} splits"
            )
        if (wrong := np.flatnonzero(users[1:] < users[:-1])).size:
            raise ValueError(f"event {wrong[0] + 1}: its user stands before that of the last one")
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
