"""Recognises the layout of a source by file names and first rows.

If no layout fits, or several do, an error says what was found and what was expected.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from efficientids_flax.prepare.forms import Columnar, Delimited, Layout, Table
from efficientids_flax.prepare.layouts import amazon, movielens, named, recbole
from efficientids_flax.prepare.layouts.choose import Choice, described
from efficientids_flax.prepare.layouts.source import (
    Source,
    SourceError,
    find_files,
    folders_inside,
    part_of_split,
)
from efficientids_flax.prepare.reading.look import Look, look
from efficientids_flax.prepare.reading.streams import plain_name

LAYOUTS: dict[str, Layout] = {
    one.name: one for one in (*movielens.LAYOUTS, *amazon.LAYOUTS, *recbole.LAYOUTS)
}
MOST_TOLD = 3  # files named in a message
NAMES = (*LAYOUTS, named.NAME)


@dataclass(frozen=True)
class Fit:
    """The files that fit a layout."""

    layout: Layout
    interactions: tuple[tuple[Look, Table], ...]
    items: tuple[tuple[Look, Table], ...]


def recognise(sources: Sequence[str], choice: Choice) -> Source:
    """Find the files of a source and what they hold.

    Args:
        sources: files, folders or patterns.
        choice: the user's choices.

    Raises:
        SourceError: no layout fits, several do, or the files differ.
        UnreadableError: a file is damaged.
    """
    found = _recognised(sources, choice)
    folders = folders_inside(sources)
    remarks = [f"not read: {', '.join(folders)}"] if folders else []
    return replace(found, remarks=(*found.remarks, *remarks, *_order_remarks(found)))


def _order_remarks(found: Source) -> list[str]:
    """Remarks on what the order and the names of several files imply."""
    files = [one.look.path for one in found.interactions]
    if len(files) < 2:
        return []
    remarks = []
    if not found.has("time"):
        more = f", ... {files[-1].name}" if len(files) > MOST_TOLD else ""
        told = ", ".join(one.name for one in files[:MOST_TOLD])
        remarks.append(f"without times the order of the files is that of time: {told}{more}")
    if any(part_of_split(one) for one in files):
        remarks.append("the parts that the files are named after are read as one, and split anew")
    return remarks


def _recognised(sources: Sequence[str], choice: Choice) -> Source:
    files, all_named = find_files(sources)
    layout = choice.layout
    if layout is None and {"user", "item"} & choice.columns.keys():
        atomic = any(fnmatchcase(plain_name(one), "*.inter") for one in files)
        layout = "recbole" if atomic else named.NAME
    if layout == named.NAME:
        return _as_table(files, choice, all_named)
    tried = [LAYOUTS[layout]] if layout else list(LAYOUTS.values())
    fits = [fit for one in tried if (fit := _fit(files, one, choice))]
    if len(fits) > 1:
        names = ", ".join(fit.layout.name for fit in fits)
        raise SourceError(
            f"{_named(sources)}: fits several layouts, {names}; choose one by `layout`, or name"
            " the files"
        )
    if fits:
        return _taken(fits[0], files, choice, all_named)
    if layout is None and _usual(files, choice):
        return _as_table(files, choice, all_named)
    raise SourceError(_none_fits(sources, files, tried, choice))


def _fit(files: Sequence[Path], layout: Layout, choice: Choice) -> Fit | None:
    interactions, items = [], []
    for path in files:
        if found := _first(path, layout.interactions, choice):
            interactions.append(found)
        elif found := _first(path, layout.items, choice):
            items.append(found)
    return Fit(layout, tuple(interactions), tuple(items)) if interactions else None


def _first(path: Path, tables: Sequence[Table], choice: Choice) -> tuple[Look, Table] | None:
    """The first kind of file that fits, with a look at the file; None if none does."""
    for table in tables:
        if not any(fnmatchcase(plain_name(path), name) for name in table.names):
            continue
        found = look(path, table.form, choice.encoding)
        if _is(found, table, choice):
            return found, table
    return None


def _is(found: Look, table: Table, choice: Choice) -> bool:
    if found.empty:
        return False
    if isinstance(table.form, Delimited) and table.form.patterns:
        return found.fits(table.form.patterns)
    replaced = {role for role in choice.columns if role in {"user", "item"}}
    needs = {
        name for field in table.fields if field.needed and field.role not in replaced
        for name in field.columns
    } | set(table.also)  # fmt: skip
    return needs <= set(found.columns) and not set(table.lacks) & set(found.columns)


def _taken(fit: Fit, files: Sequence[Path], choice: Choice, all_named: bool) -> Source:
    used = {one.path for one, _ in (*fit.interactions, *fit.items)}
    others = [one for one in files if one not in used and not _is_beside(one, fit.layout)]
    if others and all_named:
        raise SourceError(
            f"{others[0]}: does not fit the layout {fit.layout.name} as"
            f" {fit.interactions[0][0].path.name} does; {described(others[0], choice)}"
        )
    remarks = [f"not read: {', '.join(one.name for one in others)}"] if others else []
    if all_named and not fit.items and choice.items is None:
        remarks += _items_beside(fit)
    return choice.source(fit.layout, fit.interactions, fit.items, remarks)


def _items_beside(fit: Fit) -> list[str]:
    """Remark that files next to the named one may describe its items."""
    folder = fit.interactions[0][0].path.absolute().parent
    names = {name for table in fit.layout.items for name in table.names}
    found = [
        one.name
        for one in sorted(folder.iterdir())
        if one.is_file() and any(fnmatchcase(plain_name(one), name) for name in names)
    ]
    told = ", ".join(found[:MOST_TOLD])
    return [f"{told} may describe the items and was not read; name it too"] if found else []


def _is_beside(path: Path, layout: Layout) -> bool:
    name = plain_name(path)
    return any(fnmatchcase(name, one) for one in layout.beside) or name.lower().startswith("readme")


def _usual(files: Sequence[Path], choice: Choice) -> bool:
    """Whether a file has columns with usual names for users and items."""
    for path in files:
        form = choice.form_of(path)
        if form is None:
            continue
        if {"user", "item"} <= named.usual_columns(
            look(path, form, choice.encoding).columns
        ).keys():
            return True
    return False


def _as_table(files: Sequence[Path], choice: Choice, all_named: bool) -> Source:
    found: list[tuple[Look, Table]] = []
    others = []
    for path in files:
        form = choice.form_of(path)
        if form is None:
            if all_named:
                raise SourceError(
                    f"{path}: its format does not follow from its name, as of .csv, .tsv, .jsonl"
                    " and .parquet; give `separator`"
                )
            others.append(path)
            continue
        seen = look(path, form, choice.encoding)
        columns = {**named.usual_columns(seen.columns), **choice.columns}
        missing = [role for role in ("user", "item") if columns.get(role) not in seen.columns]
        if missing and not all_named and len(files) > 1:
            others.append(path)
            continue
        if seen.empty:
            raise SourceError(f"{path}: is empty")
        if missing:
            told = ", ".join(f"{role}: {columns.get(role, 'none is named so')}" for role in missing)
            raise SourceError(
                f"{path}: has no column for {told}; its columns are {', '.join(seen.columns)}."
                " Give `user` and `item`"
            )
        found.append((seen, named.layout_of(form, columns).interactions[0]))
    if not found:
        raise SourceError(
            f"{files[0].parent}: no file has columns for user and item; "
            + "; ".join(described(one, choice) for one in files[:5])
        )
    remarks = [f"not read: {', '.join(one.name for one in others)}"] if others else []
    layout = Layout(named.NAME, named.TOLD, tuple(table for _, table in found))
    return choice.source(layout, tuple(found), (), remarks)


def _none_fits(
    sources: Sequence[str], files: Sequence[Path], tried: Sequence[Layout], choice: Choice
) -> str:
    found = [f"  {described(one, choice)}" for one in files[:10]]
    wanted = [f"  {one.name}: {_looked_for(one)}" for one in tried]
    known = "the layout that was chosen" if len(tried) == 1 else "a layout that is known"
    return "\n".join([
        f"{_named(sources)}: does not have {known}. Found:", *found, "Looked for:", *wanted,
        "For any other table, name the columns: `user` and `item`, `time`, `rating`; if it has no"
        " header, give `columns` as well",
    ])  # fmt: skip


def _looked_for(layout: Layout) -> str:
    return "; or ".join(f"{' or '.join(one.names)} {_shape(one)}" for one in layout.interactions)


def _shape(table: Table) -> str:
    form = table.form
    if isinstance(form, Delimited) and form.columns:
        return f"without header: {form.separator.join(form.columns)!r}"
    kind = "keys" if not isinstance(form, Delimited | Columnar) else "columns"
    return f"with {kind} {', '.join(table.needs)}"


def _named(sources: Sequence[str]) -> str:
    return sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1} more"
