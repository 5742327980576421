"""A dump with the places of its relevant templates, and the facts drawn from it."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converters.paxml.infer.facts import Facts
from converters.paxml.infer.hparams import EXPERIMENT, Symbol

LM = "model.lm_tpl"
ACTIVATIONS = {
    "ReLU": "relu", "ReLU6": "relu6", "SquaredReLU": "squared_relu", "CubedReLU": "cubed_relu",
    "LeakyReLU": "leaky_relu", "SineReLU": "sine_relu", "ELU": "elu", "Sigmoid": "sigmoid",
    "Tanh": "tanh", "SiLU": "silu", "Swish": "silu", "Softplus": "softplus", "Exp": "exp",
    "Identity": "identity",
}  # fmt: skip
GENERIC = "convert it leaf for leaf with --family generic"
UNSET = {  # in Praxis, 0 means "not set here" for these
    "model_dims", "vocab_size", "hidden_dims", "num_heads", "moe.hidden_dims", "moe.num_experts",
}  # fmt: skip
# Praxis uses these settings only if they are above 0: `if self.atten_logit_cap and ... > 0`, `if
# self.label_smoothing_prob > 0`. Any other value, also None, becomes the value given here.
OFF: Mapping[str, float | None] = {
    "attention_logit_cap": None, "moe.gating_logit_cap": 0.0, "moe.min_group_size": None,
    "moe.expert_capacity": 0, "moe.capacity_factor": 0.0, "label_smoothing": 0.0,
    "second_label_smoothing": 0.0, "z_loss_weight": 0.0,
}  # fmt: skip
# The softmax layers apply any cap but 0; the sign of c does not matter in c * tanh(x / c).
CAPS_OF_ANY_SIGN = ("final_logit_cap", "soft_cap_logits")
# Dumps write the name of the type instead of a NumPy or JAX number or array.
_UNWRITTEN = re.compile(r"u?int\d+|b?float\d+|complex\d+|bool_?|ndarray|ArrayImpl|\w*Array")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Dump:
    """A dump, the facts drawn from it, and the paths of the layers' templates."""

    values: Mapping[str, Any]
    facts: Facts
    places: Mapping[str, str]

    def path(self, path: str) -> str:
        """Fill in the `{place}` of a path; for a list of templates, that of the chosen one."""
        return path.format(**self.places)

    def has(self, path: str) -> bool:
        """Whether the dump has a value at this path, or a layer."""
        found = self.path(path) in self.values and not self.unwritten(path)
        return found or f"{self.path(path)}.cls" in self.values

    def unwritten(self, path: str) -> bool:
        """Whether the dump has the name of a type in place of the value or a part of it."""
        return _names_a_type(self.values.get(self.path(path)))

    def get(self, path: str, default: Any) -> Any:
        """The value at a path, or Praxis' default."""
        if self.unwritten(path):
            return default
        return _unquoted(self.values.get(self.path(path), default), default)

    def number(self, path: str, default: float) -> float:
        """The number at a path; the default if there is no finite number."""
        value = self.get(path, default)
        if isinstance(value, float) and not math.isfinite(value):
            self.facts.problems.append(f"{self.path(path)} is {value}, expected a finite number")
            return default
        return value if isinstance(value, int | float) else default

    def size(self, path: str, default: int = 0) -> int:
        """The number at a path, truncated; the default if there is no finite number."""
        return int(self.number(path, default))

    def class_of(self, path: str, default: str) -> str | None:
        """Name of a template's class; None if there is no template."""
        if self.path(path) in self.values and not self.has(f"{path}.cls"):
            return None
        found = self.get(f"{path}.cls", default)
        return found.name if isinstance(found, Symbol) else str(found)

    def add(self, key: str, path: str, value: Any) -> None:
        """Add a fact from this path: sure if the dump has the path, else Praxis' default."""
        value = _or_off(key, value)
        if self.unwritten(path) or isinstance(value, Symbol):
            self.facts.unread[key] = (
                f"{self.path(path)} holds {self.values[self.path(path)]}, which dumps do not write"
                " out"
            )
        elif not (key in UNSET and isinstance(value, int | float) and value <= 0):
            self.facts.add(key, value, self.path(path), sure=self.has(path))

    def activation(self, key: str, path: str) -> None:
        """Add the activation function of a template."""
        name = self.class_of(path, "ReLU")
        kind = ACTIVATIONS.get(name or "")
        if name == "GELU":
            kind = "gelu_tanh" if self.get(f"{path}.approximate", True) else "gelu"
        if kind is None:
            self.refuse(f"{path}.cls", name)
        else:
            self.add(key, f"{path}.cls", kind)

    def refuse(self, path: str, value: Any) -> None:
        """Record a setting of Praxis that our decoder does not compute."""
        self.facts.problems.append(
            f"{self.path(path)} is {value}, which the decoder does not compute; {GENERIC}"
        )


def _or_off(key: str, value: Any) -> Any:
    """A number as the decoder takes it; if Praxis ignores it, our value for "off"."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return value
    if key in CAPS_OF_ANY_SIGN:
        return abs(value) if value else None
    return OFF[key] if key in OFF and (value is None or value <= 0) else value


def _names_a_type(value: Any) -> bool:
    """Whether a value, or a part of a list, is the name of a numeric type."""
    if isinstance(value, list | tuple):
        return any(isinstance(part, str) and _UNWRITTEN.fullmatch(part) for part in value)
    own = isinstance(value, Symbol) and not value.module
    return own and _UNWRITTEN.fullmatch(value.name) is not None


def _unquoted(value: Any, default: Any) -> Any:
    """Turn a number, truth value or None that the job was given as text into that value."""
    if not isinstance(value, str) or isinstance(default, str):
        return value
    if value in ("None", "NoneType"):
        return None
    if value in ("True", "False"):
        return value == "True"
    if _NUMBER.fullmatch(value):
        return int(value) if value.lstrip("+-").isdecimal() else float(value)
    return value


def open_dump(values: Mapping[str, Any], template: int = 0) -> Dump:
    """Find the templates of the layers: directly, repeated, in pipeline stages, or in a list.

    Args:
        values: path -> value of the dump.
        template: which template to use if there is a list.
    """
    stack = f"{LM}.stacked_transformer_tpl"
    for inner in ("pipeline_stage", "block"):
        if f"{stack}.{inner}.cls" in values:
            stack = f"{stack}.{inner}"
    facts = Facts()
    layer = f"{stack}.transformer_layer_params_tpl"
    if f"{layer}[0].cls" in values:
        layer += f"[{template}]"
    return Dump(
        values,
        facts,
        {
            "lm": LM,
            "softmax": f"{LM}.softmax_tpl",
            "stack": stack,
            "layer": layer,
            "atten": f"{layer}.tr_atten_tpl",
            "ff": f"{layer}.tr_fflayer_tpl",
            "moe": f"{stack}.moe_layer_tpl",
        },
    )


def read_experiment(dump: Dump, rows: tuple[tuple[str, str], ...]) -> None:
    """Add facts from the experiment's class variables, for keys that the rest of the dump lacks."""
    for key, name in rows:
        path = EXPERIMENT + name
        known = dump.facts.of_model().known.get(key)
        if path in dump.values and (known is None or not known.sure):
            dump.add(key, path, dump.values[path])


def templates(values: Mapping[str, Any]) -> int:
    """How many templates the layers have: 1, or the length of their list."""
    layer = open_dump(values).path("{layer}").removesuffix("[0]")
    found = {f"{layer}[{number}].cls" for number in range(len(values))} & values.keys()
    return max(len(found), 1)
