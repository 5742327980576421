"""The command `embed`: a catalogue in, a vector for each of its items out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converters.errors import ConversionError
from efficientids_flax.commands import command, echo, is_quiet
from efficientids_flax.commands.declare import MISTAKES
from efficientids_flax.commands.options import Real, choice, count
from efficientids_flax.commands.options import data_dir as data_dir_option
from efficientids_flax.commands.options import num_items as num_items_option
from efficientids_flax.commands.options import overwrite as overwrite_option

if TYPE_CHECKING:
    from efficientids_flax.embed import Encoder, Output

# How -> where it may come from, and the options that go with it alone.
# fmt: off
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text":   (("data_dir", "texts"), ("model", "tokenizer", "engine", "pooling", "max_length",
                                       "prefix", "normalize", "batch_size", "dtype", "column")),
    "als":    (("data_dir",),         ("engine", "width", "regularization", "alpha", "iterations",
                                       "seed")),
    "cooccurrence":
              (("data_dir",),         ("width", "window", "seed")),
    "random": (("data_dir", "num_items"), ("width", "seed")),
}
ENGINES = {"text": ("flax", "transformers"), "als": ("exact", "implicit")}
# fmt: on
DEFAULTS = {
    "pooling": "mean",
    "prefix": "",
    "normalize": False,
    "batch_size": 32,
    "dtype": "float32",
    "column": "title+text",
    "width": 64,
    "regularization": 0.01,
    "alpha": 40.0,
    "iterations": 15,
    "window": 5,
    "seed": 0,
}  # fmt: skip


@command("embed", mistakes=(*MISTAKES, ConversionError))
@click.option("--from", "kind", required=True, type=click.Choice(list(KINDS)),
              help="What vectors are made from.")  # fmt: skip
@data_dir_option
@click.option(
    "--texts", metavar="FILE", help="Texts, one for each line, or .jsonl with title and text."
)
@num_items_option
@click.option("--out", metavar="FILE", help="Output, .npy (default: DIR/embeddings.npy).")
@click.option("--model", metavar="FOLDER", help="text: a HuggingFace model, or a converted one.")
@click.option(
    "--tokenizer", metavar="NAME", help="text: folder of the tokenizer (default: the model)."
)
@choice("--engine", sum(ENGINES.values(), ()),
        "text: flax or transformers; als: exact or implicit.")  # fmt: skip
@choice("--pooling", ("mean", "last"), "text: pooling of the tokens. [mean]")
@count("--max-length", "text: most tokens of a text. [512]")
@click.option("--prefix", metavar="TEXT", help="text: text to put before each.")
@click.option("--normalize", is_flag=True, default=None, help="text: scale vectors to length one.")
@count("--batch-size", "text: texts at a time. [32]")
@choice("--dtype", ("float32", "bfloat16", "float16"), "text: dtype of the model. [float32]")
@choice("--column", ("title+text", "title", "text"), "text: columns to embed. [title+text]")
@count("--width", "als, cooccurrence, random: width of the vectors. [64]")
@click.option("--regularization", type=Real(min=0), help="als: regularization. [0.01]")
@click.option("--alpha", type=Real(min=0), help="als: weight of a choice. [40]")
@count("--iterations", "als: iterations. [15]")
@count("--window", "cooccurrence: largest distance of two items. [5]")
@count("--seed", "als, cooccurrence, random: seed. [0]", least=0)
@overwrite_option
def embed(kind: str, as_json: bool, overwrite: bool, **given: Any) -> None:
    """Make a vector for each item of a catalogue.

    Vectors come from the items' texts, by a language model in a local folder (text); from the
    interactions of the training split, by alternating least squares (als) or by which items are
    chosen soon after one another (cooccurrence); or from random numbers (random). Writes
    embeddings.npy, float32, and embeddings.json, which says how they were made. If it is killed
    while it embeds texts, run it again: it continues where it stopped.
    """
    from efficientids_flax.embed import Output

    _check(kind, given)
    options = {name: DEFAULTS.get(name) if value is None else value
               for name, value in given.items()}  # fmt: skip
    out = options["out"] or str(Path(given["data_dir"]) / "embeddings.npy")
    output = Output(out, overwrite=overwrite)
    about, notes = _MAKERS[kind](options, output)
    text = "\n".join([f"{out}: {about}", *(f"note: {note}" for note in notes)])
    echo(as_json, {"output": out, "from": kind, "notes": notes}, text)


def _check(kind: str, given: dict[str, Any]) -> None:
    """Raise `UsageError` for what is missing or does not go together."""
    sources, own = KINDS[kind]
    present = [name for name in ("data_dir", "texts", "num_items") if given[name] is not None]
    if len(present) != 1 or present[0] not in sources:
        raise click.UsageError(f"--from {kind} takes {' or '.join(map(_flag, sources))}")
    if present != ["data_dir"] and given["out"] is None:
        raise click.UsageError("--out FILE is missing")
    for name in {*sum((names for _, names in KINDS.values()), ())} - {*own}:
        if given[name] is not None:
            raise click.UsageError(f"{_flag(name)} does not go with --from {kind}")
    if given["engine"] is not None and given["engine"] not in ENGINES[kind]:
        raise click.UsageError(f"--from {kind} has the engines {', '.join(ENGINES[kind])}")
    if kind == "text" and given["model"] is None:
        raise click.UsageError("--from text needs --model FOLDER")
    if given["texts"] is not None and given["column"] is not None:
        raise click.UsageError("--column goes with --data-dir")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _from_text(options: dict[str, Any], output: Output) -> tuple[str, list[str]]:
    from efficientids_flax.embed import TextOptions, catalogue_of, embed_texts, texts_of
    from efficientids_flax.embed.encoders import folder_name
    from efficientids_flax.embed.items import Catalogue, texts_of_file

    if options["texts"] is not None:
        texts = texts_of_file(options["texts"])
        catalogue = Catalogue(len(texts), None, Path(options["texts"]).name)
    else:
        catalogue = catalogue_of(options["data_dir"])
        texts = texts_of(options["data_dir"], options["column"])
    chosen = TextOptions(options["pooling"], options["max_length"], options["prefix"],
                         options["normalize"], options["batch_size"])  # fmt: skip
    encoder, tokenizer = _encoder(options)
    about = {"source": catalogue.name, "catalogue": catalogue.digest,
             "name": folder_name(options["model"]), "column": options["column"]}  # fmt: skip
    found = embed_texts(
        texts, tokenizer, encoder, output, chosen, about, None if is_quiet() else _tell
    )
    kind = encoder.about["engine"]
    return f"{len(texts)} vectors of width {encoder.width}, of texts, by {kind}", found.notes()


def _encoder(options: dict[str, Any]) -> tuple[Encoder, Any]:
    """The model and its tokenizer."""
    from converters.huggingface import load_pretrained_lm
    from efficientids_flax.backbone import Decoder
    from efficientids_flax.backbone.presets import load_tokenizer
    from efficientids_flax.embed import DecoderEncoder, TransformersEncoder
    from efficientids_flax.stored import load_model

    folder, dtype = options["model"], options["dtype"]
    converted = _is_converted(Path(folder))
    if converted and options["tokenizer"] is None:
        raise ValueError(f"{folder}: a converted model has no tokenizer; give --tokenizer FOLDER")
    tokenizer = load_tokenizer(options["tokenizer"] or folder)
    if options["engine"] == "transformers":
        if dtype != "float32":
            raise ValueError(f"--dtype: found {dtype}, engine transformers computes in float32")
        return TransformersEncoder(folder), tokenizer
    if converted:
        model, params, _ = load_model(folder, dtype=dtype)
        if not isinstance(model, Decoder):
            raise ValueError(f"{folder}: is no language model")
        return DecoderEncoder(model, params), tokenizer
    try:
        config, params = load_pretrained_lm(folder, dtype)
    except ConversionError as error:
        told, known, _ = str(error).partition(" is not supported; known are")
        if not known:
            raise
        raise ValueError(
            f"{told} is not supported: our decoder does not compute that family; --engine"
            " transformers does, in PyTorch"
        ) from error
    return DecoderEncoder(Decoder(config), params), tokenizer


def _is_converted(folder: Path) -> bool:
    """Whether it is what a conversion or an export wrote, not HuggingFace's."""
    import json

    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # loading it says what is wrong
    return isinstance(found, dict) and "schema_version" in found


def _from_als(options: dict[str, Any], output: Output) -> tuple[str, list[str]]:
    import dataclasses

    import numpy as np

    from efficientids_flax.embed import AlsOptions, catalogue_of, factorize, interactions_of
    from efficientids_flax.text import first_of

    catalogue = catalogue_of(options["data_dir"])
    chosen = AlsOptions(
        options["width"], options["regularization"], options["alpha"], options["iterations"],
        options["seed"], options["engine"] or "exact",
    )  # fmt: skip
    pairs = interactions_of(options["data_dir"])
    items = factorize(pairs, chosen).items
    unseen = np.flatnonzero(np.bincount(pairs.items, minlength=catalogue.num_items) == 0).tolist()
    items[unseen] = 0
    output.write(items, {
        "method": "als", "source": catalogue.name, "catalogue": catalogue.digest,
        **dataclasses.asdict(chosen), "pairs": len(pairs.users),
        "without_interactions": {"count": len(unseen), "items": unseen[:100]},
        "items": catalogue.num_items, "width": chosen.factors,
    })  # fmt: skip
    notes = []
    if unseen:
        notes.append(
            f"{len(unseen)} items that nobody chose in training have zeros ({first_of(unseen)})"
        )
    return f"{len(items)} vectors of width {chosen.factors}, by als ({chosen.engine})", notes


def _from_cooccurrence(options: dict[str, Any], output: Output) -> tuple[str, list[str]]:
    import dataclasses

    import numpy as np

    from efficientids_flax.data.prepared import open_prepared
    from efficientids_flax.embed import CooccurrenceOptions, catalogue_of, cooccurrence_vectors
    from efficientids_flax.text import first_of

    catalogue = catalogue_of(options["data_dir"])
    chosen = CooccurrenceOptions(options["width"], options["window"], seed=options["seed"])
    sequences = open_prepared(options["data_dir"]).sequences()
    found = cooccurrence_vectors(
        sequences.items, *sequences.bounds("train"), catalogue.num_items, chosen
    )
    alone = np.flatnonzero(~found.any(axis=1)).tolist()
    output.write(found, {
        "method": "cooccurrence", "source": catalogue.name, "catalogue": catalogue.digest,
        **dataclasses.asdict(chosen), "alone": {"count": len(alone), "items": alone[:100]},
        "items": catalogue.num_items,
    })  # fmt: skip
    notes = []
    if alone:
        notes.append(
            f"{len(alone)} items that stand near no other in training, or no more often than by"
            f" chance, have zeros ({first_of(alone)})"
        )
    return f"{len(found)} vectors of width {chosen.width}, by cooccurrence", notes


def _from_nothing(options: dict[str, Any], output: Output) -> tuple[str, list[str]]:
    from efficientids_flax.embed import catalogue_of, drawn
    from efficientids_flax.embed.items import Catalogue

    catalogue = Catalogue(options["num_items"] or 0, None, "nothing")
    if options["data_dir"] is not None:
        catalogue = catalogue_of(options["data_dir"])
    found = drawn(catalogue.num_items, options["width"], options["seed"])
    output.write(found, {
        "method": "random", "source": catalogue.name, "catalogue": catalogue.digest,
        "seed": options["seed"], "items": len(found), "width": options["width"],
    })  # fmt: skip
    return f"{len(found)} vectors of width {options['width']}, drawn", []


def _tell(done: int, of: int) -> None:
    if done == of or done % 50 == 0:
        click.echo(f"{done} of {of} batches", err=True)


_MAKERS = {
    "text": _from_text,
    "als": _from_als,
    "cooccurrence": _from_cooccurrence,
    "random": _from_nothing,
}
