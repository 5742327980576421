"""Reports what was read, left out and written; accounts for every row."""

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from efficientids_flax.prepare.catalogue import Catalogue
from efficientids_flax.prepare.layouts import Source
from efficientids_flax.prepare.options import PrepareOptions
from efficientids_flax.prepare.reading import PER_SECOND, UNIT_NAMES, Malformed
from efficientids_flax.prepare.shards import Counts, Shard
from efficientids_flax.prepare.stage import Staged
from efficientids_flax.prepared_format import SPLITS
from efficientids_flax.text import table

if TYPE_CHECKING:
    from efficientids_flax.prepare.filters import Filtered

TIES = "source order"
ELSEWHERE = {"choice", "engine", "memory", "threads", "overwrite"}  # no effect, or shown apart
DAY = 86_400  # seconds
DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}  # formats of dates without hyphens
FIRST_YEAR, LAST_YEAR = "1900", "2100"
BELOW, TWICE, CORE = "below_min_rating", "duplicates", "k_core"


@dataclass(frozen=True)
class Done:
    """The results of the steps.

    Attributes:
        filtered: result of the filters.
        counts: counts of the rows that were written.
        sorted_rows: number of sorted rows, before duplicates were removed.
        shards: the files of interactions.
        catalogue: facts about the items that were written.
        described: number of items that have a description.
    """

    filtered: "Filtered"
    counts: Counts
    sorted_rows: int
    shards: tuple[Shard, ...]
    catalogue: Catalogue
    described: int


@dataclass(frozen=True)
class Report:
    """What `prepare` did.

    Attributes:
        layout: name of the layout.
        files: names of the files that were read.
        rows: rows of the source: "read", and what became of them; "malformed" is by kind.
        counts: counts of the output: users, items, interactions, those of each part, cold items and
            their rows, users without a training row, and users too short to split.
        described: what became of rows of item files; empty without such files.
        split: its rule, and where parts begin.
        time_unit: unit of the column `time`; None without one.
        command: the options that determine the output.
        shards: the files of interactions.
        catalogue: digest of the items' ids.
        remarks: what the user should look at: malformed rows, files that were not read.
        out: the output directory.
    """

    layout: str
    files: tuple[str, ...]
    rows: Mapping[str, Any]
    counts: Mapping[str, int]
    described: Mapping[str, Any]
    split: Mapping[str, Any]
    time_unit: str | None
    command: Mapping[str, Any]
    shards: tuple[Shard, ...]
    catalogue: str
    remarks: tuple[str, ...]
    out: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        found = asdict(self)
        return {**found, "out": None if self.out is None else str(self.out)}

    def text(self) -> str:
        """The report for people: what was read, what became of it, and what was written."""
        rows = [("rows read", self.rows["read"])]
        rows += [(f"  malformed: {kind}", n) for kind, n in self.rows["malformed"].items()]
        named = {BELOW: "below the minimum rating", TWICE: "duplicates", CORE: "outside the k-core"}
        rows += [(f"  {told}", self.rows[name]) for name, told in named.items() if self.rows[name]]
        rows += [("interactions", self.counts["interactions"])]
        if self.split["rule"] != "none":
            rows += [(f"  {part}", self.counts[part]) for part in SPLITS]
        rows += [("users", self.counts["users"])]
        few = {"short_users": "too short to split", "new_users": "nothing to train on"}
        rows += [
            (f"  {told}", self.counts[name]) for name, told in few.items() if self.counts[name]
        ]
        rows += [("items", self.counts["items"])]
        if self.counts["cold_items"]:
            rows += [
                ("  cold, in no row to train on", self.counts["cold_items"]),
                ("  rows of cold items", self.counts["cold_rows"]),
            ]
        rows += [("  with title or text", self.counts["described_items"])]
        if self.described:
            rows += [("descriptions read", self.described["read"])]
            rows += [(f"  malformed: {kind}", n) for kind, n in self.described["malformed"].items()]
            if others := self.described["of_other_items_or_again"]:
                rows += [("  of other items, or once more", others)]
        times = (
            "none, so the order of the source"
            if self.time_unit is None
            else (UNIT_NAMES[self.time_unit])
        )
        facts = [("layout", self.layout), ("files", ", ".join(self.files)), ("times", times),
                 ("split", self._split_text())]  # fmt: skip
        lines = [table(facts), table([(name, f"{count:,}") for name, count in rows])]
        return "\n".join([*lines, *(f"note: {one}" for one in self.remarks)])

    def _split_text(self) -> str:
        points = [f"{part} from {self.split[f'{part}_from']}" for part in ("valid", "test")
                  if self.split.get(f"{part}_from") is not None]  # fmt: skip
        return ", ".join([self.split["rule"], *points])


def report_of(source: Source, staged: Staged, options: PrepareOptions, done: Done) -> Report:
    """Build the report.

    Raises:
        RuntimeError: rows are not accounted for, which is a bug of ours.
    """
    counts = _counts(source, staged, options, done)
    rows = _rows(staged, options, done)
    split: dict[str, Any] = {"rule": options.split}
    if options.split == "time":
        split |= {
            f"{part}_from": None if found is None else -(-found // staged.divisor)
            for part, found in (
                ("valid", done.filtered.valid_from),
                ("test", done.filtered.test_from),
            )
        }
    described = {}
    if source.items:
        bad = staged.malformed_items
        described = {
            "read": staged.described + bad.count,
            "malformed": dict(sorted(bad.kinds.items())),
            "used": done.described,
            "of_other_items_or_again": staged.described - done.described,
        }
    files = tuple(one.look.path.name for one in (*source.interactions, *source.items))
    return Report(
        source.layout, files, rows, counts, described, split, staged.unit,
        _command(source, options), done.shards, done.catalogue.digest,
        (*source.remarks, *_empty_parts(options, counts), *_remarks(staged.malformed),
         *_remarks(staged.malformed_items), *_odd_times(staged)),
    )  # fmt: skip


def _rows(staged: Staged, options: PrepareOptions, done: Done) -> dict[str, Any]:
    """How many of the rows read were left out for each reason, and how many were kept."""
    found, kept = done.filtered, done.counts.interactions
    twice = done.sorted_rows - kept
    if found.pairs is not None:  # duplicates count before the k-core, even if removed later
        twice = 0 if options.duplicates == "all" else found.passing - found.pairs
    rows = {
        "read": staged.rows + staged.malformed.count,
        "malformed": dict(sorted(staged.malformed.kinds.items())),
        BELOW: staged.rows - found.passing,
        TWICE: twice,
        CORE: found.removed,
        "kept": kept,
    }
    left = staged.malformed.count + rows[BELOW] + twice + found.removed + kept
    if left != rows["read"]:
        raise RuntimeError(f"{rows['read']} rows were read and {left} are accounted for: {rows};"
                           " this is a bug of ours")  # fmt: skip
    return rows


def _counts(source: Source, staged: Staged, options: PrepareOptions, done: Done) -> dict[str, int]:
    counts, cold = done.counts, done.counts.cold
    one_by_one = options.split == "leave-one-out"
    return {
        "users": sum(map(len, counts.of_user)),
        "items": len(cold),
        "interactions": counts.interactions,
        **counts.parts,
        "cold_items": int(cold.sum()),
        "cold_rows": int(counts.of_item_later[cold].sum()),
        "new_users": counts.new_users,
        "short_users": counts.short_users if one_by_one else 0,
        "described_items": done.catalogue.titled,
    }


def _command(source: Source, options: PrepareOptions) -> dict[str, Any]:
    choice = options.choice
    told = {name: value for name, value in asdict(options).items() if name not in ELSEWHERE}
    return {
        "sources": [one.look.path.name for one in source.interactions],
        "layout": source.layout,
        **choice.columns,
        "items": [one.look.path.name for one in source.items],
        "items_id": choice.items_id,
        "without": sorted(choice.without),
        "separator": choice.separator,
        "quotes": choice.quotes,
        "encoding": choice.encoding,
        "header": choice.header,
        **told,
    }


def _empty_parts(options: PrepareOptions, counts: Mapping[str, int]) -> list[str]:
    """Remark that a requested part has no rows."""
    if options.split == "none":
        return []
    wanted = ["train", "test"]
    if options.split == "leave-one-out" or options.valid_from or options.valid_fraction:
        wanted.append("valid")
    return [f"no row is in the {part} part" for part in wanted if not counts[part]]


def _odd_times(staged: Staged) -> list[str]:
    """Remark that times lie before 1970 or in the future: they are kept, but may be mistakes."""
    if staged.times is None or staged.span is None:
        return []
    first, last = (moment // PER_SECOND[staged.times.kept] for moment in staged.span)
    told = {"before 1970": first < 0, "in the future": last > time.time() + DAY}
    odd = " and ".join(name for name, there in told.items() if there)
    remarks = [f"some times are {odd}: {first} to {last} seconds after 1970"] if odd else []
    written = [str(moment) for moment in staged.span]
    if staged.times.form == "whole" and not staged.times.given and all(map(_as_date, written)):
        remarks.append(
            f"times such as {written[0]} are read as {UNIT_NAMES[staged.times.unit]} after 1970; if"
            " they are dates, write them with hyphens, 2014-10-11"
        )
    return remarks


def _as_date(digits: str) -> bool:
    """Whether a number looks like a date: 20141011, 201410110334 or 20141011033402."""
    form = DIGITS.get(len(digits))
    if form is None or not FIRST_YEAR <= digits[:4] <= LAST_YEAR:
        return False
    try:
        dt.datetime.strptime(digits, form)
    except ValueError:
        return False
    return True


def _remarks(malformed: Malformed) -> list[str]:
    if not malformed.count:
        return []
    return [f"{malformed.count} malformed rows are left out, first {', '.join(malformed.first)}"]
