"""Tables of rules that say which source leaf becomes which target leaf, and their application.

Read `language` first for what a rule can say, then the tables `transformer_lm`, `efficientids`,
`timesfm` and `heads`. `apply` applies a table, `families` chooses one, `files` reads a table that a
user wrote.
"""

from converters.rules.apply import Mapped, RuledTree, apply_rules
from converters.rules.families import FAMILIES, Table, detect, generic_table, table_for
from converters.rules.files import read_document, read_table
from converters.rules.heads import UNSAID, Said, with_heads
from converters.rules.language import Ignore, Rule
from converters.rules.timesfm import LORA_LEAVES
from converters.rules.timesfm import prefix_of as forecaster_prefix
from converters.rules.transformer_lm import has_nhd_post
