"""Trains a recommender on a frozen HuggingFace language model, then asks it for the next film.

    python examples/train_on_huggingface.py [FOLDER or NAME] [--lora RANK]

Without a model, it makes a tiny random one in the form of transformers, with a tokenizer. Needs
`pip install 'efficientids-flax[hf,safetensors]'`. In the synthetic data, each viewer watches films
of one genre.
"""

import argparse
import json
import tempfile
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from converters.recommender import load_recommender
from efficientids_flax import ClusteringInfo, Trainer, create_optimizer
from efficientids_flax.config import LoraConfig
from efficientids_flax.data import Example, load_tokenizer, titled
from efficientids_flax.data.interleave import PromptBuilder
from efficientids_flax.inference import Ranker
from efficientids_flax.train.batches import ShuffledBatches

GENRES, PER_GENRE, WIDTH, STEPS = 4, 6, 16, 150
TITLES = [f"{genre} {number}" for genre in ("western", "noir", "musical", "horror")
          for number in ("one", "two", "three", "four", "five", "six")]  # fmt: skip
GENRE_OF = np.repeat(np.arange(GENRES), PER_GENRE)


def main() -> None:
    """Train, and recommend."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", help="a folder, or a name in the HuggingFace cache")
    parser.add_argument("--lora", type=int, metavar="RANK", help="train low-rank additions too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name = given.model or make_model(Path(folder))
        tokenizer = load_tokenizer(name)
        model, params = load_recommender(
            name,
            ClusteringInfo.from_assignments(GENRE_OF),
            item_embedding_dim=WIDTH,
            lora=LoraConfig(given.lora) if given.lora else None,
            dtype="float32",  # of the computation; parameters are stored in bfloat16
        )
    builder = PromptBuilder(tokenizer, len(TITLES), vocab_size=model.config.backbone.vocab_size)

    watched = viewings(np.random.default_rng(0), 512)
    rows = builder.batch([Example(prompt(history), [last]) for *history, last in watched], 32)
    batches = ShuffledBatches(rows, 32)
    trainer = Trainer(model, create_optimizer(3e-3), progress="none")
    state = trainer.create_train_state(
        jax.random.key(0), {field: values[:32] for field, values in rows.items()}, params=params
    )
    sizes = [sum(x.size for x in jax.tree.leaves(t)) for t in (state.trained, state.frozen)]
    print("trained {:,} numbers, frozen {:,}".format(*sizes))
    state = trainer.train(state, batches, num_steps=STEPS)
    print("loss {:.3f} -> {:.3f}".format(*(trainer.history[i]["loss"] for i in (0, -1))))

    histories = [[0, 3, 5], [6, 9, 11]]
    prompts = builder.prompts([prompt(history) for history in histories])
    found = Ranker(model, state.params).rank(prompts, k=3, exclude_seen=True)
    for history, items in zip(histories, found.ids, strict=True):
        print(" | ".join(TITLES[i] for i in history), "->", " | ".join(TITLES[i] for i in items))


def viewings(rng: np.random.Generator, count: int) -> list[list[int]]:
    """Four films of one genre for each viewer."""
    genres = rng.integers(0, GENRES, count)
    return [list(rng.choice(np.flatnonzero(genre == GENRE_OF), 4, False)) for genre in genres]


def prompt(history: list[int]) -> list[str | int]:
    """A history with titles, followed by the question."""
    return ["watched ", *titled(history, TITLES), "next "]


def make_model(folder: Path) -> Path:
    """A random Qwen3 of two layers and a whole-word tokenizer, as HuggingFace files."""
    words = ["<unk>", "<end>", "watched", "next", ",", *sorted(set(" ".join(TITLES).split()))]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)
    width, hidden, heads, kv, head = 32, 64, 4, 2, 8
    config = {
        "model_type": "qwen3", "vocab_size": len(words), "hidden_size": width, "head_dim": head,
        "intermediate_size": hidden, "num_hidden_layers": 2, "num_attention_heads": heads,
        "num_key_value_heads": kv, "tie_word_embeddings": True,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": (len(words), width), "model.norm.weight": (width,)}
    for layer in range(2):
        place = f"model.layers.{layer}."
        rows = {"q": heads * head, "k": kv * head, "v": kv * head}
        shapes |= {f"{place}self_attn.{x}_proj.weight": (n, width) for x, n in rows.items()}
        shapes |= {f"{place}self_attn.{x}_norm.weight": (head,) for x in "qk"}
        shapes[f"{place}self_attn.o_proj.weight"] = (width, heads * head)
        shapes |= {f"{place}mlp.{x}_proj.weight": (hidden, width) for x in ("gate", "up")}
        shapes[f"{place}mlp.down_proj.weight"] = (width, hidden)
        shapes |= {f"{place}{x}_layernorm.weight": (width,) for x in ("input", "post_attention")}
    rng = np.random.default_rng(0)
    save_file({name: random(rng, shape) for name, shape in shapes.items()},
              folder / "model.safetensors")  # fmt: skip
    return folder


def random(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random weights: ones for norms, and kernels that keep the scale of activations."""
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)


if __name__ == "__main__":
    main()
