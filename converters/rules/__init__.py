"""Which source leaf becomes which target leaf: tables, and what applies them.

Read `apply` for what a rule can say, then the tables `transformer_lm` and `efficientids`;
`families` chooses the table of a checkpoint, `files` reads a user's own.
"""

from converters.rules.apply import Ignore, Mapped, Rule, RuledTree, apply_rules
from converters.rules.families import FAMILIES, Table, detect, table_for
from converters.rules.files import read_document, read_table

__all__ = [
    "FAMILIES",
    "Ignore",
    "Mapped",
    "Rule",
    "RuledTree",
    "Table",
    "apply_rules",
    "detect",
    "read_document",
    "read_table",
    "table_for",
]
