"""Planted faults: the first difference is found at the right place, with its usual cause."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from efficientids_flax.parameters import parameter_axes
from efficientids_flax.stored import load_converted
from efficientids_flax.tree import flatten
from parity_tests.check import check_kind, check_pass
from parity_tests.compare import first_failure
from parity_tests.converted import read_clustering
from parity_tests.hints import find_hints
from parity_tests.recording import Recording
from parity_tests.run import Subject, settled

LLAMA, GPT, PALM = "Llama_v11orbaxnames", "GptRepeat_v00gda_gzip", "PalmLike_gda"
CAPS, ITEMS = "Caps", "b_everywhere"
Leaves = dict[str, np.ndarray]


@dataclass(frozen=True)
class Fault:
    """One fault: a change of parameters (`leaves`) or of the decoder's settings, and its trace.

    Attributes:
        name: name of the fault.
        case: name of the recording.
        place: our path of the first difference.
        hint: text in one of the hints; None if the fault has no signature.
        leaves: changes the parameters in place.
        settings: settings of the decoder.
    """

    name: str
    case: str
    place: str
    hint: str | None
    leaves: Callable[[Leaves], None] | None = None
    settings: Mapping[str, Any] | None = None


def edit(path: str, change: Callable[[np.ndarray], np.ndarray], layer: int | None = None) -> Any:
    def apply(leaves: Leaves) -> None:
        value = leaves[path].copy()
        if layer is None:
            value = change(value)
        else:
            value[layer] = change(value[layer])
        leaves[path] = value

    return apply


def swap(first: str, second: str) -> Any:
    def apply(leaves: Leaves) -> None:
        for path in [path for path in leaves if path.startswith(first)]:
            other = second + path.removeprefix(first)
            leaves[path], leaves[other] = leaves[other], leaves[path]

    return apply


def flipped(value: np.ndarray) -> np.ndarray:
    """A kernel [D, N, H] whose matrix [D, N H] was stored transposed."""
    return value.reshape(value.shape[0], -1).T.reshape(value.shape)


def reversed_layers(leaves: Leaves) -> None:
    for path in leaves:
        if path.removeprefix("pretrained_lm/").startswith("layers/"):
            leaves[path] = leaves[path][::-1].copy()


def faults() -> list[Fault]:
    found = []
    for layer in (0, 1):
        prefix = f"layers_{layer}/"
        found += [
            Fault(f"{kind} of layer {layer} transposed", LLAMA, f"{prefix}{path}/product",
                  "is transposed", edit(f"{prefix}{path}/kernel", flipped))
            for kind, path in (
                ("query", "attention/query"), ("key", "attention/key"),
                ("value", "attention/value"),
            )
        ]  # fmt: skip
        found += [
            Fault(f"1+ missing on {norm} of layer {layer}", LLAMA, f"{prefix}{norm}",
                  "`1 +` is missing", edit(f"{prefix}{norm}/scale", lambda v: v - 1))
            for norm in ("attention_norm", "mlp_norm")
        ]  # fmt: skip
        found += [
            Fault(f"{path} of layer {layer} scaled", LLAMA, f"{prefix}{path}/product",
                  "is 0.5 times ours", edit(f"{prefix}{path}/kernel", lambda v: 2 * v))
            for path in ("attention/out", "mlp/up", "mlp/down")
        ]  # fmt: skip
        found.append(
            Fault(f"gate and up of layer {layer} swapped", LLAMA, f"{prefix}mlp/up/product",
                  "swapped" if layer == 0 else None,
                  swap(f"{prefix}mlp/up/", f"{prefix}mlp/gate/"))
        )  # fmt: skip
    for layer in range(3):
        inside = f"layers_{layer}/attention/qkv"
        found += [
            Fault(f"fused order in layer {layer}", GPT, inside + "/product", "lies in the order",
                  edit("layers/attention/qkv/kernel", lambda v: v[[1, 0, 2]], layer)),
            Fault(f"1+ doubled in layer {layer}", GPT, f"layers_{layer}/mlp_norm",
                  "`1 +` is doubled", edit("layers/mlp_norm/scale", lambda v: v + 1, layer)),
            Fault(f"bias missing in layer {layer}", GPT, f"layers_{layer}/mlp/down",
                  "a bias that one of the two lacks",
                  edit("layers/mlp/down/bias", lambda v: 0 * v, layer)),
        ]  # fmt: skip
    found += [
        Fault("item adapter", ITEMS, "item_inputs", None,
              edit("item_input_adapter/layers_0/kernel", lambda v: 2 * v)),
        Fault("item table", ITEMS, "item_rows", "is 0.5 times ours",
              edit("item_embedding/kernel", lambda v: 2 * v)),
        Fault("bias of the words", ITEMS, "word_logits", "a bias that one of the two lacks",
              edit("pretrained_lm/lm_head/bias", lambda v: 0 * v)),
        Fault("layers of the recommender", ITEMS, "layers_0/attention_norm",
              "layers are in reverse order", reversed_layers),
    ]  # fmt: skip
    return [
        *found,
        Fault("layers swapped", LLAMA, "layers_0/attention_norm", "layers are in reverse order",
              swap("layers_0/", "layers_1/")),
        Fault("layers reversed", GPT, "layers_0/attention_norm", "layers are in reverse order",
              reversed_layers),
        Fault("sqrt(D) missing", CAPS, "word_embeddings", "sqrt(D)",
              settings={"embedding_scale": "none"}),
        Fault("sqrt(D) too much", LLAMA, "layers_0/attention_norm", "sqrt(D)",
              settings={"embedding_scale": "sqrt_dim"}),
        Fault("epsilon", LLAMA, "layers_0/attention_norm", "another epsilon",
              settings={"norm_epsilon": 1e-3}),
        Fault("activation", GPT, "layers_0/mlp/activated", "another activation",
              settings={"activation": "relu"}),
        Fault("no cap on the attention", CAPS, "layers_0/attention/logits", "soft cap of 1.5",
              settings={"attention_logit_cap": None}),
        Fault("no cap on the logits", CAPS, "outputs/logits", "soft cap of 2.5",
              settings={"final_logit_cap": None}),
        Fault("no scale of queries", PALM, "layers_0/attention/logits", "scaled otherwise",
              settings={"query_scaling": "none"}),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def subjects(
    converted: Callable[[str], Path], recorded: Callable[[str], Recording]
) -> Callable[[str], tuple[Subject, Any, Any]]:
    @cache  # one clustering each, because compiled programs are cached by it
    def find(case: str) -> tuple[Subject, Any, Any]:
        params, _, config = load_converted(converted(case), optimizer=False)
        recording = recorded(case)
        described, _, _ = settled(config, recording)
        model = check_kind(described, recording)
        one = next(one for one in recording.passes if one.activations)
        one = replace(one, gradients={})
        tables = read_clustering(recording.clustering) if recording.clustering else None
        return Subject(model, params, tables), recording, one

    return find


def located(subject: Subject, recording: Any, one: Any, fault: Fault) -> None:
    first = first_failure(check_pass(subject, recording, one))
    assert first is not None, "the fault is not seen"
    assert first.ours == fault.place
    hints = find_hints(subject, recording, one, first)
    if fault.hint is not None:
        assert any(fault.hint in hint.cause for hint in hints), hints


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.name)
def test_is_located_and_explained(fault: Fault, subjects: Any) -> None:
    subject, recording, one = subjects(fault.case)
    if fault.leaves is not None:
        leaves = {path: np.asarray(value) for path, value in flatten(subject.params).items()}
        fault.leaves(leaves)
        subject = subject.with_parameters(leaves)
    if fault.settings is not None:
        subject = subject.with_backbone(**fault.settings)
    located(subject, recording, one, fault)


@pytest.mark.parametrize("case", [LLAMA, PALM])
def test_rotary_pairs_are_explained(case: str, subjects: Any) -> None:
    subject, recording, one = subjects(case)
    rotary = subject.backbone.rotary
    other = "half_split" if rotary.pairing == "interleaved" else "interleaved"
    wrong = subject.with_backbone(rotary=replace(rotary, pairing=other))
    place = "layers_0/attention/rotated_query"
    located(wrong, recording, one, Fault("", case, place, "turn other pairs"))


@pytest.mark.parametrize(
    ("setting", "value", "place", "hint"),
    [
        ("soft_cap_logits", 5.0, "first_pass_logits", "the logits have another soft cap"),
        ("use_correction", True, "outputs/logits", "the cluster's normaliser"),
        ("scale_before_logits", True, "word_logits", "D^-0.5 before the logits"),
    ],
)
def test_settings_of_the_recommender_are_explained(
    setting: str, value: Any, place: str, hint: str, subjects: Any
) -> None:
    subject, recording, one = subjects(ITEMS)
    wrong = replace(subject, config=replace(subject.config, **{setting: value}))
    located(wrong, recording, one, Fault("", ITEMS, place, hint))


def test_without_a_fault_nothing_differs(subjects: Any) -> None:
    assert first_failure(check_pass(*subjects(GPT))) is None


def test_a_kernel_stored_output_first(subjects: Any) -> None:
    """The same model with kernels in PyTorch's layout, one of which is then transposed."""
    subject, recording, one = subjects(LLAMA)
    turned = replace(subject.backbone, kernel_axes="out_in")
    axes, wanted = parameter_axes(subject.backbone), parameter_axes(turned)
    leaves = {
        path: np.asarray(value).transpose([axes[path].index(axis) for axis in wanted[path]])
        for path, value in flatten(subject.params).items()
    }
    subject = replace(subject, config=turned).with_parameters(leaves)
    assert first_failure(check_pass(subject, recording, one)) is None
    path = "layers_1/attention/query"
    kernel = leaves[f"{path}/kernel"]
    leaves[f"{path}/kernel"] = kernel.reshape(-1, kernel.shape[-1]).T.reshape(kernel.shape)
    fault = Fault("query transposed", LLAMA, f"{path}/product", "is transposed")
    located(subject.with_parameters(leaves), recording, one, fault)
