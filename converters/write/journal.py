"""Records which leaves of an unfinished output are written and verified, for `--resume`."""

import hashlib
import json

from converters.errors import OutputError
from converters.stores import Store
from converters.write.jobs import Record

PLACE = "_journal"
_PLAN = f"{PLACE}/plan.json"


class Journal:
    """Entries below `_journal/` of the unfinished output, one per finished job.

    An entry is written in one atomic step, after its leaves. So it is true at whatever moment the
    process is killed.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def begun(self) -> bool:
        """Whether there is a journal to continue."""
        return self._store.exists(_PLAN)

    def begin(self, fingerprint: str) -> None:
        """Start a new journal for the plan with this fingerprint."""
        self._store.write(_PLAN, json.dumps({"fingerprint": fingerprint}).encode())

    def done(self, fingerprint: str) -> dict[str, Record]:
        """Read the records of the finished leaves, by target.

        Raises:
            OutputError: the unfinished output was made by another plan.
        """
        if not self._store.exists(_PLAN):
            return {}
        if json.loads(self._store.read(_PLAN)).get("fingerprint") != fingerprint:
            raise OutputError(
                f"{self._store.url}: the unfinished output was made from another checkpoint or "
                "with other options; convert without --resume to start over."
            )
        return self.records()

    def add(self, records: list[Record]) -> None:
        """Record finished leaves."""
        name = hashlib.sha256(records[0]["target"].encode()).hexdigest()[:32]
        self._store.write(f"{PLACE}/job-{name}.json", json.dumps(records).encode())

    def records(self) -> dict[str, Record]:
        """The records of all leaves that any process has finished, by target."""
        names = [name for name in self._store.children(PLACE) if name.startswith("job-")]
        texts = self._store.read_many([f"{PLACE}/{name}" for name in names])
        return {record["target"]: record for text in texts for record in json.loads(text)}

    def clear(self) -> None:
        """Remove the journal from a finished output."""
        self._store.delete(PLACE)
