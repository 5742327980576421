"""RecBole's atomic files `.inter`, `.item` and `.user`, whose header has types: `user_id:token`.

These types also tell titles and texts of items, see `choose`.
"""

from efficientids_flax.prepare.forms import Delimited, Field, Layout, Table

ATOMIC = Delimited("\t", typed=True)

# fmt: off
LAYOUTS = (
    Layout(
        "recbole", "RecBole atomic files",
        (Table(("*.inter",), ATOMIC,
               (Field("user", ("user_id",), True), Field("item", ("item_id",), True),
                Field("rating", ("rating",)), Field("time", ("timestamp",)))),),
        (Table(("*.item",), ATOMIC, (Field("item", ("item_id",), True),)),),
        ("*.user", "*.kg", "*.link", "*.net"),
    ),
)
# fmt: on
