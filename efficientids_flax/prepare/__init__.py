"""Prepares interaction files for training: `efficientids prepare`.

    source -> layouts -> reading -> stage -> engines run relations -> sequences -> shards, catalogue

Read `forms` and `layouts`, the known forms of sources; `reading`, `codes` and `stage`, how rows are
read; `relations` and `filters`, the queries that one of the `engines` runs on them; `sequences`,
the rows of each user; and `shards`, `catalogue`, `report`, `manifest` and `output`, what is
written. `options` has the options, `run` all steps in order, `commands` the shell command.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.prepare.layouts.choose import Choice
    from efficientids_flax.prepare.options import PrepareOptions
    from efficientids_flax.prepare.report import Report
    from efficientids_flax.prepare.run import prepare

__all__ = ["Choice", "PrepareOptions", "Report", "prepare"]

__getattr__ = lazy_names(__name__)
