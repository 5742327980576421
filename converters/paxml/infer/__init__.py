"""The settings of a model and its training, from tree, dump and flags, each with its source.

Read `facts`, then `model`, which weighs the sources, `flags` among them; `tree` says what names and
shapes tell, `hparams`, `post_init` and `dump` read the job's files, `backbone`, `attention`,
`softmax`, `items` and `optimizer` say what their keys mean, and `norms` what both say of norms.
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
