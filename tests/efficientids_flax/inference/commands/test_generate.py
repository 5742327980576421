"""The command `generate`: its tokens are those of the library, one prompt or many."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from converters import convert_paxml_checkpoint
from efficientids_flax.backbone import SamplingConfig
from efficientids_flax.backbone.generate import generate
from efficientids_flax.commands.program import main
from efficientids_flax.stored import load_model


@pytest.fixture(scope="module")
def converted(recording, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("lm") / "out"
    convert_paxml_checkpoint(recording("LlamaRepeat_gda") / "checkpoint", out, optimizer="none")
    return out


def run(*arguments: object, text: str | None = None) -> Result:
    return CliRunner().invoke(main, ["generate", *map(str, arguments)], input=text)


def tokens(converted: Path, prompt: list[int], **options) -> list[int]:
    model, params, _ = load_model(converted)
    made = generate(model, params, np.array([prompt]), max_new_tokens=6, **options)
    return np.asarray(made.tokens)[0, : int(made.lengths[0])].tolist()


def test_one_prompt_as_tokens(converted: Path):
    wanted = tokens(converted, [5, 6, 7])
    end = run(converted, "--input-ids", "5,6,7", "--max-new-tokens", 6)
    assert end.stdout == " ".join(map(str, wanted)) + "\n"
    end = run(converted, "--input_ids", "5,6,7", "--max_new_tokens", 6, "--eos-id", wanted[1],
              "--json")  # fmt: skip
    assert json.loads(end.stdout) == {"tokens": wanted[:2]}


def test_many_prompts_of_any_length_from_a_file(converted: Path):
    prompts = [[5, 6, 7], [9], [3, 2, 1, 4]]
    text = "\n".join(",".join(map(str, prompt)) for prompt in prompts) + "\n\n"
    end = run(converted, "--input-file", "-", "--max-new-tokens", 6, "--json", "--batch-size", 2,
              text=text)  # fmt: skip
    rows = [json.loads(line) for line in end.stdout.splitlines()]
    assert [row["line"] for row in rows] == ["-:1", "-:2", "-:3"]
    assert [row["tokens"] for row in rows] == [tokens(converted, prompt) for prompt in prompts]


def test_drawn_tokens_follow_from_the_seed(converted: Path):
    drawn = ("--input-ids", "5,6", "--temperature", 1.0, "--top-k", 20, "--max-new-tokens", 6)
    first, again, other = (run(converted, *drawn, "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == again != other
    import jax

    key = jax.random.fold_in(jax.random.key(1), 0)
    wanted = tokens(converted, [5, 6], sampling=SamplingConfig(1.0, 20), rng=key)
    assert first.split() == list(map(str, wanted))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "give one of --prompt, --input-ids, --input-file"),
        (["--input-ids", "1", "--input-file", "-"], 2, "give one of --input-ids, --input-file"),
        (["--prompt", "a"], 2, "--prompt needs --tokenizer"),
        (["--input-ids", "1", "--top-k", 3], 2, "need a --temperature above 0"),
        (["--input-ids", ""], 1, "the prompt: holds no tokens"),
        (["--input-ids", "5,96"], 1, "ids: found 96 at [0, 1], expected in [0, 96), a word"),
        (["--input-file", "-"], 1, "-: holds no prompt"),
        (["--input-file", "nowhere"], 1, "nowhere"),
        (["--prompt", "a", "--tokenizer", "nowhere"], 1, "nowhere: no such folder"),
    ],
)
def test_mistakes(converted: Path, arguments: list, code: int, message: str):
    end = run(converted, *arguments)
    assert (end.exit_code, end.stdout) == (code, "")
    assert message in end.stderr
    assert "Traceback" not in end.stderr


@pytest.mark.filterwarnings("default::UserWarning")  # a command says it on its standard error
def test_a_recommender_is_asked_elsewhere(recording, tmp_path: Path):
    case = recording("b_everywhere")
    convert_paxml_checkpoint(case / "checkpoint", tmp_path / "out", optimizer="none")
    (tmp_path / "out" / "clustering.pkl").write_bytes((case / "clustering.pkl").read_bytes())
    end = run(tmp_path / "out", "--input-ids", "1")
    assert end.exit_code == 1
    told = f"warning: {tmp_path / 'out'}: not all of its settings are known:\n  assumed, and it"
    assert end.stderr.startswith(told)
    assert "is a recommender; `efficientids recommend` asks it" in end.stderr
