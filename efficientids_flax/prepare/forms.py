"""How files of interactions and items are written: the records that layouts are made of."""

from dataclasses import dataclass

IDS = ("user", "item")
TEXTS = ("title", "text")
ROLES = (*IDS, "rating", "time", *TEXTS)


@dataclass(frozen=True)
class Field:
    """What one role's value is made of.

    Attributes:
        role: of `ROLES`.
        columns: names of the columns that it is taken from; several are joined, of texts alone.
        needed: a file without the column is not of the layout; else it has no such value.
        split: what stands between several texts in one column, which become "a, b".
        flags: the columns hold 1 or 0, and the text names those with 1.
        absent: texts that stand for none.
        joint: between the parts of a list, and between columns.
    """

    role: str
    columns: tuple[str, ...]
    needed: bool = False
    split: str | None = None
    flags: bool = False
    absent: tuple[str, ...] = ()
    joint: str = ", "


def plain(*roles: str) -> tuple[Field, ...]:
    """What is taken from columns that are named as their roles."""
    return tuple(Field(role, (role,), needed=True) for role in roles)


@dataclass(frozen=True)
class Delimited:
    """Lines of columns.

    Attributes:
        separator: between columns, one character or more.
        columns: their names where the file has no header.
        patterns: regular expressions that tell such a file, one a column.
        quote: around columns that hold separators or line breaks; None: a quote is a character.
        typed: the header names types as well, `user_id:token`.
        encodings: the first that fits the file is taken.
    """

    separator: str
    columns: tuple[str, ...] | None = None
    patterns: tuple[str, ...] = ()
    quote: str | None = None
    typed: bool = False
    encodings: tuple[str, ...] = ("utf-8",)


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line; `loose`: or a dict as Python prints it."""

    loose: bool = False


@dataclass(frozen=True)
class Columnar:
    """Parquet."""


Form = Delimited | JsonLines | Columnar


@dataclass(frozen=True)
class Table:
    """One kind of file of a layout.

    Attributes:
        names: patterns of file names, without the ending of a compression; the first form fits.
        form: how it is written.
        fields: what is taken from it.
        also: columns that show this layout, beside those of fields that are needed.
        lacks: columns that show another layout.
    """

    names: tuple[str, ...]
    form: Form
    fields: tuple[Field, ...]
    also: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Columns without which a file is not of this kind."""
        needed = (name for field in self.fields if field.needed for name in field.columns)
        return (*needed, *self.also)


@dataclass(frozen=True)
class Layout:
    """The files of a data set, as its publisher writes them.

    Attributes:
        name: for `--layout`.
        told: what it is, for people.
        interactions: files of interactions; the first kind that fits a file is taken.
        items: files that describe items.
        beside: patterns of names of files that are not needed.
    """

    name: str
    told: str
    interactions: tuple[Table, ...]
    items: tuple[Table, ...] = ()
    beside: tuple[str, ...] = ()
