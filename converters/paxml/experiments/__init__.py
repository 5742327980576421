"""A table of published experiments: their settings, and how their checkpoints are recognised.

Read `row` first, for what the table says about an experiment. `models` and `learners` hold the
settings, `shipped` the classes that PAXml ships, `layouts` what public converters write. `match`
finds the rows that fit a tree, `listing` prints the table.
"""

from converters.paxml.experiments.listing import listed, table_text
from converters.paxml.experiments.match import EXPERIMENTS, Evidence, chosen, named, recognised
from converters.paxml.experiments.row import Experiment
