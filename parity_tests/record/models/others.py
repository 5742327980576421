"""Models that are not decoders of ours; their trees are converted unchanged (family generic)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from paxml.tasks.lm import model_params
from praxis import base_layer, base_model, layers, pax_fiddle, py_utils
from praxis.layers import conformers, models, ngrammer, resnets, transformer_models, vits

from parity_tests.record.models.experiments import BATCH, GPT, TIME, Variant, adam, put, text_batch

LMS = model_params.TransformerLmSpmdAdafactor
WIDTH, HIDDEN, HEADS, WORDS = 16, 24, 2, 40


def stack(count: int = 2, **values: Any) -> Any:
    """A StackedTransformer of the usual sizes."""
    return pax_fiddle.Config(
        layers.StackedTransformer, model_dims=WIDTH, hidden_dims=HIDDEN, num_heads=HEADS,
        num_layers=count, **values,
    )  # fmt: skip


def translation() -> Any:
    """`SequenceModel` around `TransformerEncoderDecoder`."""
    model = pax_fiddle.Config(models.SequenceModel, name="translation")
    model.model_tpl.model_dims = WIDTH
    model.model_tpl.softmax_tpl.num_classes = WORDS
    model.model_tpl.encoder_stacked_transformer_tpl = stack(1, mask_self_attention=False)
    model.model_tpl.decoder_stacked_transformer_tpl = stack(
        1, mask_self_attention=True, use_cross_attention=True
    )
    model.model_tpl.packed_input = True
    return model


def translation_batch() -> Any:
    """Source and target texts."""
    return {
        "src": py_utils.NestedMap(text_batch(WORDS, 1)),
        "tgt": py_utils.NestedMap(text_batch(WORDS, 2)),
    }


def image_batch() -> dict[str, np.ndarray]:
    """Images [B, 16, 16, 3] and labels."""
    state = np.random.RandomState(3)
    return {
        "image": state.rand(BATCH, 16, 16, 3).astype(np.float32),
        "label_probs": np.eye(5, dtype=np.float32)[state.randint(0, 5, BATCH)],
    }


def convolutions() -> Any:
    """A ResNet: batch norms, whose moving averages are `non_trainable`."""
    model = pax_fiddle.Config(models.ClassificationModel, name="images")
    model.network_tpl = pax_fiddle.Config(
        resnets.ResNet, strides=[1, 2], channels=[8, 12], blocks=[1, 1], kernels=[3, 3],
        entryflow_conv_kernel=(3, 3, 3), entryflow_conv_stride=(2, 2),
    )  # fmt: skip
    model.softmax_tpl.input_dims, model.softmax_tpl.num_classes = 12, 5
    return model


def vision() -> Any:
    """A vision transformer."""
    model = pax_fiddle.Config(models.ClassificationModel, name="images")
    model.network_tpl = vits.build_vision_transformer_hparams_for_test(
        (4, 4), 4, 3, WIDTH, HIDDEN, 2, HEADS
    )
    model.network_tpl.exit_layers_tpl.pooling_tpl.pooling_dims = [1]
    model.softmax_tpl.input_dims, model.softmax_tpl.num_classes = WIDTH, 5
    return model


class Speech(base_model.BaseModel):
    """Two conformer blocks, with a sum of squares as the loss."""

    conformer_tpl: pax_fiddle.Config = base_layer.template_field(conformers.Conformer)

    def setup(self) -> None:
        """Make the blocks."""
        self.create_children("conformer", [self.conformer_tpl.clone() for _ in range(2)])

    def compute_predictions(self, input_batch: Any) -> Any:
        """Features after both blocks, [B, T, D]."""
        hidden = input_batch.features
        for block in self.conformer:
            hidden = block(hidden, input_batch.paddings)
        return hidden

    def compute_loss(self, predictions: Any, input_batch: Any) -> Any:
        """Squared distance of the features from one."""
        loss = jnp.mean(jnp.square(predictions - 1.0))
        return py_utils.NestedMap(total_loss=(loss, jnp.ones(()))), py_utils.NestedMap()


def speech() -> Any:
    """Conformers: depthwise convolutions, batch norm, relative attention."""
    model = pax_fiddle.Config(Speech, name="speech")
    model.conformer_tpl = pax_fiddle.Config(
        conformers.Conformer, input_dims=WIDTH, model_dims=WIDTH, kernel_size=5,
        atten_num_heads=HEADS,
    )  # fmt: skip
    return model


def speech_batch() -> dict[str, np.ndarray]:
    """Features [B, T, D]."""
    return {
        "features": np.random.RandomState(4).randn(BATCH, TIME, WIDTH).astype(np.float32),
        "paddings": np.zeros((BATCH, TIME), np.float32),
    }


def bert() -> Any:
    """`BertModel`: a bidirectional TransformerLm."""
    model = pax_fiddle.Config(models.BertModel, name="bert_lm")
    lm = model.lm_tpl
    lm.model_type = transformer_models.LanguageModelType.BIDIRECTIONAL
    lm.packed_input, lm.model_dims, lm.vocab_size = True, WIDTH, WORDS
    lm.stacked_transformer_tpl = stack()
    return model


def with_ngrammer(task: Any) -> None:
    """An edit that adds an Ngrammer to the embeddings."""
    task.model.lm_tpl.ngrammer_tpl = pax_fiddle.Config(
        ngrammer.VQNgrammer, ngram_vocab_size=64, ngram_emb_dim=4, num_heads=HEADS,
        dim_per_head=8, concat_ngrams=True, num_clusters=6,
    )  # fmt: skip


# fmt: off
VARIANTS = (
    Variant("EncoderDecoder", "TransformerEncoderDecoder", ("gda", "flax"), translation,
            inputs=translation_batch),
    Variant("ResNet", "convolutions and batch norms", ("gda", "ocdbt"), convolutions,
            edits=(put("train.learner.loss_name", "avg_xent"),), inputs=image_batch),
    Variant("Vit", "a vision transformer", ("gda",), vision,
            edits=(put("train.learner.loss_name", "avg_xent"),), inputs=image_batch),
    Variant("Conformer", "conformer blocks", ("flax",), speech, inputs=speech_batch),
    Variant("Bert", "a bidirectional TransformerLm", ("gda",), bert),
    Variant("Ngrammer", "a TransformerLm with n-grams", ("gda",), LMS, settings=GPT,
            edits=(adam, with_ngrammer)),
)
# fmt: on
