"""Models on disk, in the form that a conversion writes: loading and saving.

Read `load`, then `save`. `settings` reads and writes `config.json`, `doubts` reports assumed
settings, `items` has the two formats of arrays, `item_names` the names of a catalogue's items,
`item_words` the words around items in a prompt, `optimizer_states` states that optax lacks,
`free_memory` checks that parameters fit, `echoes` keeps Orbax from printing an error twice.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.stored.doubts import MATTERS, assumed_in, tell_assumed
    from efficientids_flax.stored.free_memory import WIDTHS
    from efficientids_flax.stored.item_names import ItemNames, read_item_names
    from efficientids_flax.stored.item_words import (
        ItemWords,
        Prompted,
        read_item_words,
        read_prompted,
    )
    from efficientids_flax.stored.items import read_parameter
    from efficientids_flax.stored.load import (
        OptimizerState,
        Shardings,
        clustering_of,
        load_converted,
        load_description,
        load_model,
    )
    from efficientids_flax.stored.optimizer_states import (
        BiasCorrectedAdamState,
        ShardedAdafactorState,
        as_optax,
    )
    from efficientids_flax.stored.save import save_description, save_model
    from efficientids_flax.stored.settings import (
        Config,
        Origins,
        load_config,
        training_of,
        write_settings,
    )

__all__ = [
    "MATTERS",
    "WIDTHS",
    "BiasCorrectedAdamState",
    "Config",
    "ItemNames",
    "ItemWords",
    "OptimizerState",
    "Origins",
    "Prompted",
    "ShardedAdafactorState",
    "Shardings",
    "as_optax",
    "assumed_in",
    "clustering_of",
    "load_config",
    "load_converted",
    "load_description",
    "load_model",
    "read_item_names",
    "read_item_words",
    "read_parameter",
    "read_prompted",
    "save_description",
    "save_model",
    "tell_assumed",
    "training_of",
    "write_settings",
]

__getattr__ = lazy_names(__name__)
