"""The user's choices about a source, its layout and columns, and what is read from each file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from efficientids_flax.prepare.forms import (
    TEXTS,
    Columnar,
    Delimited,
    Field,
    Form,
    Layout,
    Table,
)
from efficientids_flax.prepare.layouts import named
from efficientids_flax.prepare.layouts.source import Source, SourceError, Taken, find_files
from efficientids_flax.prepare.reading.columnar import type_problem, types_in
from efficientids_flax.prepare.reading.look import Look, look, types_of_header
from efficientids_flax.prepare.reading.streams import UnreadableError, head

TITLES = ("title", "name")  # column name endings of titles in RecBole files
IDS = ("item_id", "id")  # default id columns of files that describe items
ROWS = ("user", "item")
SHOWN = 12  # columns shown in messages


@dataclass(frozen=True)
class Choice:
    """The user's choices about a source.

    Attributes:
        layout: its name; None: recognise it.
        columns: role -> column, for `user`, `item`, `time`, `rating`, `title`, `text`.
        items: a file that describes items, a folder of such files, or a pattern.
        items_id: its column of ids.
        without: roles that are not read.
        separator, quotes, encoding: how text files are written.
        header: names of the columns, for files without a header.
    """

    layout: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    items: str | None = None
    items_id: str | None = None
    without: frozenset[str] = frozenset()
    separator: str | None = None
    quotes: bool = True
    encoding: str | None = None
    header: tuple[str, ...] | None = None

    def form_of(self, path: Path, *, header: bool = True) -> Form | None:
        """How a file of no known layout is written, see `named.form_of`."""
        return named.form_of(
            path, separator=self.separator, quotes=self.quotes, encoding=self.encoding,
            columns=self.header if header else None,
        )  # fmt: skip

    def source(
        self,
        layout: Layout,
        interactions: Sequence[tuple[Look, Table]],
        items: Sequence[tuple[Look, Table]],
        remarks: Sequence[str],
    ) -> Source:
        """Build the source; the user's choices take precedence over the layout.

        Raises:
            SourceError: a column is missing, or files have different roles.
        """
        described_apart = bool(self.items or items)
        taken = [
            Taken(seen, fields_of(seen, table, self._roles(not described_apart), self.without))
            for seen, table in interactions
        ]
        for one in taken[1:]:
            if one.roles != taken[0].roles:
                raise SourceError(
                    f"{one.look.path}: has {', '.join(one.roles)}, but {taken[0].look.path.name}"
                    f" has {', '.join(taken[0].roles)}; give them one by one, or leave one out by"
                    " `no_time` or `no_rating`"
                )
        if self.items:
            items = self._described(layout)
        texts = {role: name for role, name in self.columns.items() if role in TEXTS}
        about = [Taken(seen, _about_items(seen, table, texts)) for seen, table in items]
        return Source(layout.name, layout.told, tuple(taken), tuple(about), tuple(remarks))

    def _roles(self, texts: bool) -> dict[str, str]:
        return {role: name for role, name in self.columns.items() if texts or role not in TEXTS}

    def _described(self, layout: Layout) -> list[tuple[Look, Table]]:
        """Find the files of `items`: in the form of the layout if they fit it, else as tables."""
        assert self.items is not None
        found = []
        for path in find_files([self.items])[0]:
            tables = [one for one in layout.items if self.items_id is None]
            for table in tables:
                seen = look(path, table.form, self.encoding)
                if not seen.empty and set(table.needs) <= set(seen.columns):
                    found.append((seen, table))
                    break
            else:
                found.append(self._table_of_items(path))
        return found

    def _table_of_items(self, path: Path) -> tuple[Look, Table]:
        form = self.form_of(path, header=False)
        if form is None:
            raise SourceError(
                f"{path}: its format does not follow from its name, as of .csv, .tsv, .jsonl and"
                " .parquet; give `separator`"
            )
        seen = look(path, form, self.encoding)
        if seen.empty:
            raise SourceError(f"{path}: is empty")
        wanted = [self.items_id] if self.items_id else [self.columns.get("item"), *IDS]
        there = [name for name in wanted if name in seen.columns]
        if not there:
            raise SourceError(f"{path}: has no column for ids of items; its columns are"
                              f" {', '.join(seen.columns)}. Give `items_id`")  # fmt: skip
        texts = tuple(Field(role, (role,)) for role in TEXTS)
        return seen, Table(("*",), form, (Field("item", (str(there[0]),), True), *texts))


def fields_of(
    seen: Look, table: Table, columns: Mapping[str, str], without: frozenset[str]
) -> tuple[Field, ...]:
    """What is read from a file.

    Args:
        seen: the file.
        table: the kind of file it is.
        columns: role -> column, as chosen by the user.
        without: roles that are not read.

    Raises:
        SourceError: a column is missing, or its type does not fit the role.
    """
    fields = {one.role: one for one in table.fields if set(one.columns) <= set(seen.columns)}
    for role, name in columns.items():
        if name not in seen.columns:
            raise SourceError(f"{seen.path}: has no column {name!r} (`{role}`); its columns are"
                              f" {', '.join(seen.columns)}")  # fmt: skip
        fields[role] = Field(role, (name,), needed=True)
    found = tuple(one for role, one in fields.items() if role not in without)
    _check(seen, found)
    return found


def described(path: Path, choice: Choice) -> str:
    """Describe a file in an error message."""
    form = choice.form_of(path) or Delimited("\t")
    try:
        seen = look(path, form, choice.encoding)
    except (UnreadableError, OSError) as error:
        return str(error)
    if seen.empty:
        return f"{path.name}: is empty"
    if not seen.columns:
        return f"{path.name}: its first lines are no JSON objects, one a line"
    names = ", ".join(seen.columns[:SHOWN])
    return f"{path.name}: begins with {names}{', ...' if len(seen.columns) > SHOWN else ''}"


def _about_items(seen: Look, table: Table, texts: Mapping[str, str]) -> tuple[Field, ...]:
    """Fields of a file that describes items; columns the user chose replace those of the table."""
    form = table.form
    fields = [one for one in table.fields if set(one.columns) & set(seen.columns)]
    if isinstance(form, Delimited) and form.typed:
        fields += _typed_texts(seen, form)
    kept = {one.role: one for one in fields}
    for role, name in texts.items():
        if name not in seen.columns:
            raise SourceError(f"{seen.path}: has no column {name!r} (`{role}`); its columns are"
                              f" {', '.join(seen.columns)}")  # fmt: skip
        kept[role] = Field(role, (name,))
    found = tuple(
        one if one.flags else
        replace(one, columns=tuple(name for name in one.columns if name in seen.columns))
        for one in kept.values()
    )  # fmt: skip
    _check(seen, found)
    return found


def _typed_texts(seen: Look, form: Delimited) -> list[Field]:
    """Texts of a RecBole item file: the title by its name, other token sequences as text."""
    types = types_of_header(head(seen.path, seen.encoding), form)
    title = next(
        (name for end in TITLES for name in seen.columns if name.lower().endswith(end)), None
    )
    rest = tuple(
        name for name, kind in zip(seen.columns, types, strict=True)
        if kind == "token_seq" and name != title
    )  # fmt: skip
    fields = [Field("title", (title,))] if title else []
    return fields + ([Field("text", rest)] if rest else [])


def _check(seen: Look, fields: Sequence[Field]) -> None:
    """Raise `SourceError` if columns clash, or a type does not fit its role."""
    names = [name for one in fields for name in one.columns]
    ids = [one.columns[0] for one in fields if one.role in ROWS]
    if len(ids) != len(set(ids)):
        raise SourceError(f"{seen.path}: users and items cannot be in one column, {ids[0]!r}")
    if twice := [name for name in names if seen.columns.count(name) > 1]:
        raise SourceError(f"{seen.path}: has two columns {twice[0]!r}")
    if isinstance(seen.form, Columnar):
        types = types_in(seen.path)
        for one in fields:
            if problem := type_problem(one.role, types[one.columns[0]]):
                raise SourceError(f"{seen.path}: column {one.columns[0]!r}: {problem}")
