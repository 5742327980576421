"""The command `generate`: prompts in, what a language model goes on with out."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import click
import numpy as np

from efficientids_flax.commands import combined, command, echo
from efficientids_flax.commands.options import Ids, Real, compute_dtype, count, numbers
from efficientids_flax.commands.options import tokenizer as tokenizer_option


class Prompt(NamedTuple):
    """One prompt as tokens, and where it came from."""

    where: str
    ids: list[int]


OPTIONS = combined(
    click.option("--prompt", "prompts", multiple=True, metavar="TEXT",
                 help="A text to continue; needs --tokenizer. Repeatable."),
    click.option("--input-ids", type=Ids(), help='Tokens to continue: "1,2,3".'),
    click.option("--input-file", metavar="FILE",
                 help="Many prompts, one a line: texts with --tokenizer, else tokens. - is "
                      "standard input."),
    tokenizer_option,
    count("--max-new-tokens", "Most tokens to generate.", 32),
    click.option("--temperature", type=Real(min=0), default=0.0, show_default=True,
                 help="0 decodes greedily."),
    count("--top-k", "Sample from the k most probable tokens."),
    click.option("--top-p", type=Real(0, 1, min_open=True),
                 help="Sample from the most probable tokens with this total."),
    count("--seed", "Random seed.", 0, least=0),
    click.option("--eos-id", type=Ids(), help="Tokens that end a text (default: the tokenizer's)."),
    count("--batch-size", "Prompts at a time.", 16),
    compute_dtype,
)  # fmt: skip


@command("generate")
@click.argument("checkpoint")  # a missing one is bad input (exit 1), not bad usage
@OPTIONS
def generate(
    checkpoint: str, prompts: Sequence[str], input_ids: list[int] | None, input_file: str | None,
    tokenizer: str | None, batch_size: int, dtype: str | None, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Continue prompts with the language model CHECKPOINT.

    CHECKPOINT is the output of `convert`, `convert-hf` or `export`. With --json, one object for
    each prompt.
    """
    ways = {"--prompt": bool(prompts), "--input-ids": input_ids is not None,
            "--input-file": input_file is not None}  # fmt: skip
    if sum(ways.values()) != 1:
        chosen = [name for name, there in ways.items() if there] or list(ways)
        raise click.UsageError(f"give one of {', '.join(chosen)}")
    if prompts and tokenizer is None:
        raise click.UsageError("--prompt needs --tokenizer; tokens are given with --input-ids")
    if given["temperature"] == 0 and (given["top_k"] or given["top_p"]):
        raise click.UsageError("--top-k and --top-p need a --temperature above 0")
    words = _tokenizer(tokenizer)
    read = list(_prompts(prompts, input_ids, input_file, words))
    if not read:
        raise ValueError(f"{input_file}: holds no prompt")
    for where, tokens in _continued(checkpoint, read, batch_size, dtype, words, given):
        text = " ".join(map(str, tokens)) if words is None else words.decode(tokens)
        about = {"line": where} if where else {}
        told = about | {"tokens": tokens} | ({} if words is None else {"text": text})
        echo(as_json, told, f"{where}\n{text}" if where else text)


def _tokenizer(name: str | None) -> Any:
    from efficientids_flax.backbone.presets import load_tokenizer

    return None if name is None else load_tokenizer(name)


def _prompts(
    texts: Sequence[str], ids: list[int] | None, path: str | None, words: Any
) -> Iterator[Prompt]:
    """The prompts as tokens.

    Raises:
        ValueError: naming the line that holds none.
    """
    if ids is not None:
        yield Prompt("", ids)
    for text in texts:
        yield Prompt("", words(text)["input_ids"])
    if path is None:
        return
    with click.open_file(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = numbers(line) if words is None else words(line.rstrip("\n"))["input_ids"]
            except ValueError as error:
                raise ValueError(f"{path}:{number}: {error}") from error
            yield Prompt(f"{path}:{number}", found)


def _continued(
    checkpoint: str, prompts: list[Prompt], batch_size: int, dtype: Any, words: Any,
    given: dict[str, Any],
) -> Iterator[tuple[str, list[int]]]:  # fmt: skip
    """Where a prompt came from, and the tokens after it."""
    import jax

    from efficientids_flax.backbone import Decoder, SamplingConfig
    from efficientids_flax.backbone.generate import generate as run
    from efficientids_flax.forecast import TimesFM
    from efficientids_flax.stored import load_model

    for where, ids in prompts:
        if not ids:
            raise ValueError(f"{where or 'the prompt'}: holds no tokens")
    model, params, _ = load_model(checkpoint, dtype=dtype)
    if isinstance(model, TimesFM):
        raise ValueError(f"{checkpoint}: is a forecaster; `efficientids forecast` asks it")
    if not isinstance(model, Decoder):
        raise ValueError(f"{checkpoint}: is a recommender; `efficientids recommend` asks it")
    ends = given["eos_id"]
    if ends is None:
        own = getattr(words, "eos_token_id", None)
        ends = [] if own is None else [own]
    params = jax.device_put(params)  # once, not for every batch
    sampling = SamplingConfig(given["temperature"], given["top_k"], given["top_p"])
    key = jax.random.key(given["seed"])
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        longest = max(len(prompt.ids) for prompt in part)
        ids = np.zeros((len(part), longest), np.int32)
        paddings = np.ones((len(part), longest), np.float32)
        for row, prompt in enumerate(part):  # padded on the left, as HuggingFace does
            ids[row, longest - len(prompt.ids) :] = prompt.ids
            paddings[row, longest - len(prompt.ids) :] = 0
        made = run(
            model, params, ids, paddings if paddings.any() else None,
            max_new_tokens=given["max_new_tokens"], sampling=sampling,
            rng=jax.random.fold_in(key, start), eos_id=ends,
        )  # fmt: skip
        rows = zip(part, *map(np.asarray, made), strict=True)
        for prompt, tokens, length in rows:
            yield prompt.where, tokens[:length].tolist()
