"""One dump, seen through the templates that matter, and the facts drawn from it."""

import math
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
UNSET = {  # 0 stands for "not set here" in Praxis
    "model_dims", "vocab_size", "hidden_dims", "num_heads", "moe.hidden_dims", "moe.num_experts",
}  # fmt: skip
# Attention is capped by a value above 0 alone. The softmax layers cap by any other than 0, and
# c * tanh(x / c) does not know the sign of c.
CAPS = ("attention_logit_cap", "final_logit_cap", "soft_cap_logits")
CAPS_ABOVE_0 = ("attention_logit_cap", "moe.gating_logit_cap")


@dataclass(frozen=True)
class Dump:
    """A dump, the facts drawn from it, and the places of the layers' templates in it."""

    values: Mapping[str, Any]
    facts: Facts
    places: Mapping[str, str]

    def path(self, path: str) -> str:
        """A path with its `{place}` filled in; of a list of templates the first speaks."""
        return path.format(**self.places)

    def has(self, path: str) -> bool:
        """Whether the dump gives this path a value, or a layer below it."""
        path = self.path(path)
        return path in self.values or f"{path}.cls" in self.values

    def get(self, path: str, default: Any) -> Any:
        """The value at a path, or Praxis' default."""
        return self.values.get(self.path(path), default)

    def number(self, path: str, default: float) -> float:
        """The number at a path; the default where there is none, or no number."""
        value = self.get(path, default)
        if isinstance(value, float) and not math.isfinite(value):
            self.facts.problems.append(f"{self.path(path)} is {value}, expected a finite number")
            return default
        return value if isinstance(value, int | float) else default

    def size(self, path: str, default: int = 0) -> int:
        """The whole number at a path; the default where there is none, or no number."""
        return int(self.number(path, default))

    def class_of(self, path: str, default: str) -> str | None:
        """Name of the class of a template; None where there is none."""
        if self.path(path) in self.values and not self.has(f"{path}.cls"):
            return None
        found = self.get(f"{path}.cls", default)
        return found.name if isinstance(found, Symbol) else str(found)

    def add(self, key: str, path: str, value: Any) -> None:
        """A fact from this path: sure if the dump has it, else Praxis' default."""
        value = _cap(key, value)
        if isinstance(value, Symbol):
            self.facts.unread[key] = (
                f"{self.path(path)} holds {value}, which dumps do not write out"
            )
        elif not (key in UNSET and value == 0):
            self.facts.add(key, value, self.path(path), sure=self.has(path))

    def activation(self, key: str, path: str) -> None:
        """An activation from its template."""
        name = self.class_of(path, "ReLU")
        kind = ACTIVATIONS.get(name or "")
        if name == "GELU":
            kind = "gelu_tanh" if self.get(f"{path}.approximate", True) else "gelu"
        if kind is None:
            self.refuse(f"{path}.cls", name)
        else:
            self.add(key, f"{path}.cls", kind)

    def refuse(self, path: str, value: Any) -> None:
        """Something of Praxis that our decoder does not compute."""
        self.facts.problems.append(
            f"{self.path(path)} is {value}, which the decoder does not compute; {GENERIC}"
        )


def _cap(key: str, value: Any) -> Any:
    """A cap as the decoder has it: a number above 0 or, where Praxis does not cap, none."""
    if key not in {*CAPS, *CAPS_ABOVE_0} or not isinstance(value, int | float | None):
        return value
    none = 0.0 if key not in CAPS else None
    if not value or (value < 0 and key in CAPS_ABOVE_0):
        return none
    return abs(value)


def open_dump(values: Mapping[str, Any], template: int = 0) -> Dump:
    """Finds the templates of the layers: directly, repeated, in pipeline stages, or in a list.

    Args:
        values: of the dump.
        template: which of a list of templates speaks.
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
    """Facts from the experiment's class variables, for keys that nothing else in the dump gives."""
    for key, name in rows:
        path = EXPERIMENT + name
        known = dump.facts.known.get(key)
        if path in dump.values and (known is None or not known.sure):
            dump.add(key, path, dump.values[path])


def templates(values: Mapping[str, Any]) -> int:
    """How many templates the layers have: 1, or as many as their list."""
    layer = open_dump(values).path("{layer}").removesuffix("[0]")
    found = {f"{layer}[{number}].cls" for number in range(len(values))} & values.keys()
    return max(len(found), 1)
