"""Infers the settings of a model and its training from tree, dump and flags, with their origins.

Read `facts` first, then `model`, which combines the sources. `tree` reads names and shapes, `flags`
the user's values; `hparams`, `post_init` and `dump` read the job's files, whose keys `backbone`,
`attention`, `softmax`, `items` and `optimizer` translate. `norms` handles norms from tree and dump.
"""

from converters.paxml.infer.backbone import read_backbone
from converters.paxml.infer.dump import Dump, open_dump, read_experiment, templates
from converters.paxml.infer.facts import Facts, Published
from converters.paxml.infer.flags import read_flags
from converters.paxml.infer.hparams import Symbol, is_described, read_hparams
from converters.paxml.infer.items import read_items
from converters.paxml.infer.model import (
    EXPERIMENT,
    EXPERIMENT_HEAD,
    EXPERIMENT_ITEMS,
    infer_model,
)
from converters.paxml.infer.optimizer import infer_optimizer
from converters.paxml.infer.tree import backbone_facts
