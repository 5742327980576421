"""Examples of texts and items before tokenisation, and prompts that name items by title."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

from efficientids_flax.moved import left_names

Part = str | int  # a text, or an item id


@dataclass(frozen=True)
class Example:
    """A prompt and the answer to learn.

    Attributes:
        prompt: texts and item ids.
        answer: texts and item ids; must not be empty in training.
    """

    prompt: Sequence[Part]
    answer: Sequence[Part] = ()


def titled(
    items: Iterable[int], titles: Sequence[str] | Mapping[int, str], form: str = "{title} {item}, "
) -> list[Part]:
    """Parts of a prompt that name items and show them.

    Args:
        items: item ids.
        titles: title of each item.
        form: format for each item, with `{title}` and `{item}`; the latter is the item itself.

    Raises:
        ValueError: `form` has another name in braces; an item has no title.
    """
    pieces = [(text, name) for text, name, *_ in Formatter().parse(form)]
    if unknown := [name for _, name in pieces if name not in (None, "title", "item")]:
        raise ValueError(f"form: found {{{unknown[0]}}}, expected {{title}} and {{item}}")
    parts: list[Part] = []
    for item in items:
        known = item in titles if isinstance(titles, Mapping) else 0 <= item < len(titles)
        if not known:
            raise ValueError(f"titles: there is none of item {item}")
        for text, name in pieces:
            found = text + titles[item] if name == "title" else text
            if found and parts and isinstance(parts[-1], str):
                parts[-1] += found
            elif found:
                parts.append(found)
            if name == "item":
                parts.append(int(item))
    return parts


__getattr__ = left_names(__name__)
