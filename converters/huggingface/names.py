"""Finds a language model among the names of tensors: its prefix, its head, and other tensors."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from converters.errors import MappingError
from converters.huggingface.tables import HEADS, OUTSIDE, TABLES, TensorTable
from converters.rules import Ignore

# Heads of classifiers, reward models and the like, in the model or beside it.
OTHER_HEAD = "the head of another task; the body is loaded"
_OTHER_HEADS = (
    "score", "classifier", "classification_head", "qa_outputs", "v_head", "value_head",
    "reward_head", "regression_head", "rm_head", "multiple_choice_head",
)  # fmt: skip
OTHER_HEADS = tuple(
    Ignore(f"{place}{name}.{{rest*}}", OTHER_HEAD)
    for name in _OTHER_HEADS
    for place in ("", "model.")
)
# Patterns of names that occur only if weights are in another form, and what that form is.
_FORMS = (
    (r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector)(\..*)?$"
     r"|\.(base_layer|modules_to_save|original_module)\.",
     "a LoRA of peft is inside, not merged into the weights; merge it (`merge_and_unload`), save"
     " the model and convert that"),
    (r"\.(qweight|qzeros|g_idx)$",
     "the weights are quantised (names of GPTQ and AWQ), which is not supported; take the original"
     " checkpoint"),
    (r"\.(weight_scale(_inv)?|input_scale|weight_packed|weight_zero_point|[kv]_scale)$",
     "the weights are quantised (FP8 or compressed integers with scales), which is not supported;"
     " take the original checkpoint"),
    (r"\.(SCB|absmax|quant_map|nested_absmax|nested_quant_map|weight_format)$|quant_state\.",
     "the weights are quantised (names of bitsandbytes), which is not supported; take the original"
     " checkpoint"),
    (r"\.(W_q|scales|qscales|biases)$|_(blocks|scales)$",
     "the weights are quantised (blocks with scales), which is not supported; take the original"
     " checkpoint"),
)  # fmt: skip

# Names that tables leave out, by their ends, and names outside of all language models.
_LEFT_OUT = tuple(
    {
        **{
            rf"(?:.*\.)?(?:{ignore.pattern.pattern})": None
            for table in TABLES.values()
            for ignore in table.ignores
        },
        **{ignore.pattern.pattern: None for ignore in (*OUTSIDE, *OTHER_HEADS)},
    }
)


@dataclass(frozen=True)
class Names:
    """The names of a language model in a file.

    Attributes:
        prefix: prefix of all its names ('model.', 'transformer.' ...).
        embedding: name of the word embeddings; None if there is only a head.
        head: name of the head; None if there is none.
    """

    prefix: str
    embedding: str | None
    head: str | None


def find_names(names: Iterable[str], table: TensorTable) -> Names:
    """Find the names of the model of a family.

    Raises:
        MappingError: there is no such model, or there are several.
    """
    present = set(names)
    word = table.embedding
    found = [n.removesuffix(word) for n in present if n == word or n.endswith(f".{word}")]
    # Layers that predict further tokens (DeepSeek) hold the word embeddings once more.
    inner = re.compile(".*" + re.escape(table.layers).replace(re.escape("{i}"), r"\d+"))
    found = [prefix for prefix in found if not inner.fullmatch(prefix)]
    if len(found) == 1:
        prefix, embedding = found[0], found[0] + word
    else:
        places = (
            [] if found else [p for p in _layers(present, table) if _has_top(p, present, table)]
        )
        if len(places) != 1 or beside(present, places[0], HEADS) is None:
            what = "several tensors are" if found else "no tensor is"
            raise MappingError(
                f"{what} named [...]{word}, the word embeddings of this family"
                + (f": {', '.join(sorted(p + word for p in found))}" if found else "")
            )
        prefix, embedding = places[0], None
    return Names(prefix, embedding, beside(present, prefix, HEADS))


def _layers(names: Iterable[str], table: TensorTable) -> set[str]:
    """The prefixes of names of layers."""
    pattern = re.compile(rf"(|.*\.){re.escape(table.layers).replace(re.escape('{i}'), '[0-9]+')}")
    return {found.group(1) for name in names if (found := pattern.match(name))}


def _has_top(prefix: str, names: set[str], table: TensorTable) -> bool:
    """Whether the tensors outside of layers exist, if the family has any."""
    return not table.top or any(prefix + rule.source in names for rule in table.top)


def beside(names: Iterable[str], prefix: str, known: Iterable[str]) -> str | None:
    """The tensor with one of the known names beside the model, or beside a module around it.

    Raises:
        MappingError: there are several.
    """
    parts, known = prefix.split("."), list(known)
    around = [".".join(parts[:count]) for count in range(len(parts))]
    wanted = [f"{place}.{name}" if place else name for place in around for name in known]
    found = [name for name in dict.fromkeys(wanted) if name in names]
    if len(found) > 1:
        raise MappingError(f"several heads: {', '.join(found)}")
    return found[0] if found else None


def layer_of(layers: str, name: str) -> int | None:
    """Number of the layer that a tensor belongs to; `layers` is the prefix, with '{i}'."""
    before, _, after = layers.partition("{i}")
    found = re.match(rf"{re.escape(before)}(\d+){re.escape(after)}", name)
    return int(found.group(1)) if found else None


def may_be_missing(name: str) -> bool:
    """Whether a model of the family can do without a tensor: it is left out, or is a head."""
    return any(name.endswith(head) for head in HEADS) or any(
        re.fullmatch(pattern, name) for pattern in _LEFT_OUT
    )


def another_form(names: Iterable[str]) -> str | None:
    """A sentence on tensors that are not plain weights, such as quantised ones or a LoRA."""
    present = list(names)
    for pattern, what in _FORMS:
        found = [name for name in present if re.search(pattern, name)]
        if found:
            more = f" and {len(found) - 1} more tensors" if len(found) > 1 else ""
            return f"{found[0]}{more}: {what}"
    return None
