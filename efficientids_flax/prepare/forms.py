"""Records that describe how files of interactions and items are written, as parts of layouts."""

from dataclasses import dataclass

IDS = ("user", "item")
TEXTS = ("title", "text")
ROLES = (*IDS, "rating", "time", *TEXTS)


@dataclass(frozen=True)
class Field:
    """How the value of one role is read.

    Attributes:
        role: one of `ROLES`.
        columns: names of its columns; only texts may have several, which are joined.
        needed: if a needed column is missing, the file is not of this layout; otherwise the value
            is just absent.
        split: separator between several texts in one column; they become "a, b".
        flags: the columns hold 1 or 0; the text is the names of those with 1.
        absent: texts that mean "none".
        joint: put between the parts of a list, and between columns.
    """

    role: str
    columns: tuple[str, ...]
    needed: bool = False
    split: str | None = None
    flags: bool = False
    absent: tuple[str, ...] = ()
    joint: str = ", "


def plain(*roles: str) -> tuple[Field, ...]:
    """Fields for columns that have the names of their roles."""
    return tuple(Field(role, (role,), needed=True) for role in roles)


@dataclass(frozen=True)
class Delimited:
    """Text files with one row per line and separated columns.

    Attributes:
        separator: between columns, one or more characters.
        columns: names of the columns if the file has no header.
        patterns: regular expressions that recognise such a file, one per column.
        quote: quotes columns that hold separators or line breaks; None: quotes mean nothing.
        typed: the header also has types, `user_id:token`.
        encodings: candidates; the first one that fits the file is used.
    """

    separator: str
    columns: tuple[str, ...] | None = None
    patterns: tuple[str, ...] = ()
    quote: str | None = None
    typed: bool = False
    encodings: tuple[str, ...] = ("utf-8",)


@dataclass(frozen=True)
class JsonLines:
    """One JSON object per line; if `loose`, a line may also be a Python dict literal."""

    loose: bool = False


@dataclass(frozen=True)
class Columnar:
    """A Parquet file."""


Form = Delimited | JsonLines | Columnar


@dataclass(frozen=True)
class Table:
    """One kind of file of a layout.

    Attributes:
        names: patterns of file names, without the suffix of a compression.
        form: how it is written.
        fields: what is read from it.
        also: further columns that identify this layout, besides those of needed fields.
        lacks: columns that identify another layout.
    """

    names: tuple[str, ...]
    form: Form
    fields: tuple[Field, ...]
    also: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns that a file of this kind must have."""
        needed = (name for field in self.fields if field.needed for name in field.columns)
        return (*needed, *self.also)


@dataclass(frozen=True)
class Layout:
    """The files of a data set as its publisher writes them.

    Attributes:
        name: value of `--layout`.
        told: description for people.
        interactions: kinds of interaction files; the first one that fits a file is used.
        items: kinds of files that describe items.
        beside: name patterns of files that are not needed.
    """

    name: str
    told: str
    interactions: tuple[Table, ...]
    items: tuple[Table, ...] = ()
    beside: tuple[str, ...] = ()
