"""Published experiments as a table: their settings, and how a checkpoint of one is recognised.

Read `row`, what is said of an experiment, then the tables: `models` and `learners` have the
settings, `shipped` the classes that PAXml ships, `layouts` what public converters write. `match`
says which rows fit a tree, `listing` shows the table.
"""

from converters.paxml.experiments.listing import listed, table_text
from converters.paxml.experiments.match import EXPERIMENTS, Evidence, chosen, named, recognised
from converters.paxml.experiments.row import Experiment
