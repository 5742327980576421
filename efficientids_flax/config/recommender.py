"""The recommender's configuration: a decoder whose head is extended with items and clusters.

Letters: D model width, E item width, I items, K clusters.
"""

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from efficientids_flax.config.backbone import BackboneConfig
from efficientids_flax.config.parts import AdapterConfig
from efficientids_flax.config.record import Record, positive, rates

Popularity = Literal["uniform", "log_uniform"]


@dataclass(frozen=True)
class SampledSoftmaxConfig(Record):
    """A full softmax whose sum over the items is estimated in training, see `core.head.sampled`.

    Attributes:
        negatives: source of the negatives. 'uniform' and 'log_uniform': drawn in each step, the
            same for all positions. 'in_batch': labels of the batch's other positions with a weight.
        count: S, the number of negatives drawn.
        popularity: for 'in_batch', how likely each item is as a label. 'log_uniform', here and as
            `negatives`, assumes that ids are in order of popularity, the most popular item first.
    """

    negatives: Literal["uniform", "log_uniform", "in_batch"] = "uniform"
    count: int = 1024
    popularity: Popularity = "uniform"

    def problems(self) -> Collection[str]:
        """The count is positive; a popularity is only given for 'in_batch'."""
        found = positive(self, "count")
        if self.popularity != "uniform" and self.negatives != "in_batch":
            found.append(
                f"popularity: found {self.popularity}, expected uniform: negatives that are drawn"
                " say how likely each is"
            )
        return found


@dataclass(frozen=True)
class PromptConfig(Record):
    """The words around a history in the prompts that a model was trained on.

    begin, before | history, with its items' words | after | placeholder, end

    Attributes:
        before, after: words before and after the history; `before` includes the tokenizer's begin
            token.
        placeholder: item id in place of the item to predict; None: nothing.
        end: words after the placeholder.
        item_words: whether the items of a history have words around them, such as titles; these
            words are in `stored.ItemWords`.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    placeholder: int | None = None
    end: tuple[int, ...] = ()
    item_words: bool = False

    def problems(self) -> Collection[str]:
        """Ids are not negative."""
        ids = (*self.before, *self.after, *self.end, self.placeholder or 0)
        return [f"words: found {one}, expected at least 0" for one in ids if one < 0]


@dataclass(frozen=True)
class HeadConfig(Record):
    """The head that scores items, on the hidden states of any backbone.

    Attributes:
        num_items, item_embedding_dim: I, E.
        num_clusters: K; None: that of the clustering file.
        input_adapter: E -> D, applied to items in the input.
        output_adapter: D -> E, applied to the hidden state; None with `input_adapter_everywhere`.
        input_adapter_everywhere: `input_adapter` also maps the item and cluster tables to D.
        trainable_cluster_embeddings: the cluster table is a parameter, not the clustering file's.
        full_softmax: one softmax over words and items, no clusters.
        sampled_softmax: estimate of the full softmax in training; None: compute it exactly.
        use_correction: scores in eval subtract the cluster's logsumexp.
        scale_before_logits: hidden states are multiplied by D^-0.5.
        soft_cap_logits: cap * tanh(logits / cap) in both passes; None or 0.0: no cap.
        label_smoothing, second_label_smoothing: smoothing in the first and in the second pass.
        label_smoothing_in_eval: whether evaluation smooths too.
        z_loss_weight: weight of the squared log-normaliser; 0.0: no such loss. With it, each
            training step scores the whole catalogue, as the original does.
    """

    num_items: int
    item_embedding_dim: int
    num_clusters: int | None = None
    input_adapter: AdapterConfig = field(default_factory=AdapterConfig)
    output_adapter: AdapterConfig | None = None
    input_adapter_everywhere: bool = True
    trainable_cluster_embeddings: bool = False
    full_softmax: bool = False
    sampled_softmax: SampledSoftmaxConfig | None = None
    use_correction: bool = False
    scale_before_logits: bool = False
    soft_cap_logits: float | None = None
    label_smoothing: float = 0.0
    second_label_smoothing: float = 0.0
    label_smoothing_in_eval: bool = False
    z_loss_weight: float = 0.0

    def problems(self) -> Collection[str]:
        """Sizes are positive; adapters and tables fit the wiring."""
        found = positive(self, "num_items", "item_embedding_dim", "num_clusters")
        found += rates(self, "label_smoothing", "second_label_smoothing")
        for name in ("soft_cap_logits", "z_loss_weight"):
            value = getattr(self, name)
            if value is not None and value < 0:
                found.append(f"{name}: expected at least 0, found {value}")
        if self.input_adapter_everywhere and self.output_adapter is not None:
            found.append("output_adapter: expected null, since input_adapter_everywhere is true")
        if not self.input_adapter_everywhere and self.output_adapter is None:
            found.append("output_adapter: missing, since input_adapter_everywhere is false")
        if self.trainable_cluster_embeddings and self.full_softmax:
            found.append("trainable_cluster_embeddings: a full softmax has no cluster table")
        if self.trainable_cluster_embeddings and self.num_clusters is None:
            found.append("num_clusters: a trainable cluster table needs it, found null")
        if self.sampled_softmax is not None:
            found += [f"sampled_softmax: needs {needed}" for needed in self._lacking()]
        return found

    def _lacking(self) -> list[str]:
        """The requirements of a sampled softmax that are not met."""
        wanted = {
            "full_softmax": self.full_softmax,
            "label_smoothing 0": not self.label_smoothing,
            "z_loss_weight 0": not self.z_loss_weight,
        }
        return [name for name, there in wanted.items() if not there]


@dataclass(frozen=True)
class EfficientIDSConfig(HeadConfig):
    """The recommender: a decoder and the head that scores items.

    Attributes:
        backbone: the decoder; its own `final_logit_cap`, smoothing and z-loss are not used here.
        placeholder_item_id: item id that replaces the target item in the input. It is looked up
            like any other; if the catalogue is smaller, it is clipped to the last item, as the
            original does with its 102. None: there is no such id.
        trained_length: T of the training sequences, counting all ids of a row; longer histories
            are cut to it for recommendations. None: unknown.
        prompt: the words around histories in training. None: for a model with words, those of the
            original: `<sos>` before, the placeholder and `<eos>` after.
    """

    _: KW_ONLY
    backbone: BackboneConfig
    placeholder_item_id: int | None = 102
    trained_length: int | None = None
    prompt: PromptConfig | None = None

    def problems(self) -> Collection[str]:
        """Problems of the head, of `trained_length` and of the placeholder."""
        found = [*super().problems(), *positive(self, "trained_length")]
        if self.placeholder_item_id is not None and self.placeholder_item_id < 0:
            found.append(
                f"placeholder_item_id: expected at least 0 or null, found"
                f" {self.placeholder_item_id}"
            )
        return found
