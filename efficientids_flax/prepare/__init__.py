"""Interactions on disk become data to train on: `efficientids prepare`.

    source -> layouts -> reading -> stage -> engines run relations -> sequences -> shards, catalogue

Read `forms` and `layouts`, what sources look like, `reading`, `codes` and `stage`, how rows are
read, `relations` and `filters`, what is computed of them, on one of the `engines`; `sequences`, the
rows user by user, then `shards`, `catalogue`, `report`, `manifest` and `output`, what is written;
`options` is what can be asked for, `run` all of it in order, `commands` the command.
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
