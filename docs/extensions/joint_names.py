"""An extension of Griffe: `a, b: text` in a docstring documents both, under both names.

Griffe takes the first word for the name and the rest for its type. A space that does not break
keeps the names together, and their types are written behind them.
"""

import re
from typing import Any

import griffe

JOINT = re.compile(r"^( +)(\*{0,2}\w+(?:, \*{0,2}\w+)+)(?=: )", re.MULTILINE)


class JointNames(griffe.Extension):
    """Joins the names, in every docstring."""

    def on_object(self, *, obj: griffe.Object, **given: Any) -> None:
        """Each object is seen once, when all of it is known."""
        if obj.docstring is None:
            return
        types = {name: str(one.annotation) for name, one in _described(obj) if one.annotation}

        def joined(found: re.Match[str]) -> str:
            names = found[2].split(", ")
            kinds = dict.fromkeys(types[name] for name in names if name in types)
            return f"{found[1]}{found[2].replace(' ', chr(0xA0))}" + (
                f" ({', '.join(kinds)})" if kinds else ""
            )

        obj.docstring.value = JOINT.sub(joined, obj.docstring.value)


def _described(obj: griffe.Object) -> list[tuple[str, Any]]:
    """Parameters of a function, attributes of anything else."""
    if isinstance(obj, griffe.Function):
        return [(one.name, one) for one in obj.parameters]
    return [(name, one) for name, one in obj.members.items() if isinstance(one, griffe.Attribute)]
