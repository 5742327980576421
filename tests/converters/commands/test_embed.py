"""`efficientids embed`: compared with transformers' own pooling; messages for mistakes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from efficientids_flax.commands.program import main
from tests.efficientids_flax.data.directories import write_prepared

TITLES = ["alien brazil", None, "cube", "brazil cube alien cube brazil " * 5, "alien", None]
VOCABULARY = ["<unk>", "<s>", "</s>", "alien", "brazil", "cube"]


def embed(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["embed", *map(str, arguments)])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pyarrow")
    import pyarrow as pa

    events = (([0, 2], [0, 0]), ([2, 3], [0, 0]), ([0, 4], [0, 2]))
    folder = tmp_path_factory.mktemp("prepared")
    changes = {"items.title": pa.array(TITLES, pa.string())}
    return write_prepared(folder, events, num_items=6, **changes)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random decoder and a tiny random encoder, with a tokenizer each."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    torch.manual_seed(0)
    sizes = {"vocab_size": 6, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 12, "max_position_embeddings": 64}  # fmt: skip
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(VOCABULARY)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    found = {}
    for name, config, kind in (
        ("decoder", transformers.LlamaConfig(**sizes), transformers.LlamaForCausalLM),
        ("both_ways", transformers.LlamaConfig(**sizes, is_causal=False), transformers.LlamaModel),
        ("encoder", transformers.BertConfig(**sizes), transformers.BertModel),
        ("roberta", transformers.RobertaConfig(**sizes), transformers.RobertaModel),
        ("t5", transformers.T5Config(vocab_size=6, d_model=8, d_kv=4, num_layers=2, num_heads=2),
         transformers.T5Model),
    ):  # fmt: skip
        found[name] = tmp_path_factory.mktemp(name)
        kind(config).save_pretrained(found[name])
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=words, unk_token="<unk>", pad_token="<unk>"
        ).save_pretrained(found[name])
    return found


def by_transformers(folder: Path, pooling: str, longest: int) -> np.ndarray:
    """Embeddings as users of transformers compute them: one text at a time, without padding."""
    import torch
    import transformers

    model: Any = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = np.zeros((len(TITLES), 8), np.float32)
    for item, title in enumerate(TITLES):
        if title is not None:
            given = tokenizer(title, return_tensors="pt", truncation=True, max_length=longest)
            with torch.no_grad():
                hidden = model(given["input_ids"]).last_hidden_state[0]
            rows[item] = hidden.mean(0) if pooling == "mean" else hidden[-1]
    return rows


@pytest.mark.parametrize(
    ("name", "engine", "pooling"),
    [("decoder", "flax", "mean"), ("decoder", "flax", "last"), ("both_ways", "flax", "mean"),
     ("encoder", "transformers", "mean"), ("t5", "transformers", "mean")],
)  # fmt: skip
def test_vectors_are_those_of_transformers(
    folders: dict[str, Path], prepared: Path, tmp_path: Path, name: str, engine: str, pooling: str
):
    out = tmp_path / "e.npy"
    done = embed("--from", "text", "--data-dir", prepared, "--model", folders[name], "--out", out,
                 "--engine", engine, "--pooling", pooling, "--max-length", 20,
                 "--batch-size", 2)  # fmt: skip
    assert done.exit_code == 0, done.output
    wanted = by_transformers(folders[name], pooling, 20)
    np.testing.assert_allclose(np.load(out), wanted, atol=1e-5)  # float32, two layers
    about = json.loads((tmp_path / "e.json").read_text())
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert about["catalogue"] == manifest["digests"]["catalogue"]
    assert about["name"] == folders[name].name
    assert about["model"]["engine"] == engine
    assert about["without_text"] == {"count": 2, "items": [1, 5]}
    assert about["cut"] == 1


def test_a_family_that_we_do_not_compute_is_named(
    folders: dict[str, Path], prepared: Path, tmp_path: Path
):
    done = embed("--from", "text", "--data-dir", prepared, "--model", folders["encoder"],
                 "--out", tmp_path / "e.npy")  # fmt: skip
    assert done.exit_code == 1
    assert "model_type: 'bert' is not supported" in done.stderr
    assert "--engine transformers" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_tokens_that_a_model_takes_are_counted_without_those_before_its_positions(
    folders: dict[str, Path], prepared: Path, tmp_path: Path
):
    given = ("--from", "text", "--data-dir", prepared, "--model", folders["roberta"],
             "--out", tmp_path / "e.npy", "--engine", "transformers", "--max-length")  # fmt: skip
    assert "max_length: found 63, the model takes 62 tokens" in embed(*given, 63).stderr
    done = embed(*given, 62)
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(
        np.load(tmp_path / "e.npy"), by_transformers(folders["roberta"], "mean", 62), atol=1e-5
    )


def test_interactions_of_training_alone_become_vectors(prepared: Path, tmp_path: Path):
    out = tmp_path / "als.npy"
    done = embed("--from", "als", "--data-dir", prepared, "--out", out, "--width", 3, "--json")
    assert done.exit_code == 0, done.output
    rows = np.load(out)
    assert rows.shape == (6, 3)
    # Item 4 only occurs in the test split, items 1 and 5 nowhere.
    assert [bool(row.any()) for row in rows] == [True, False, True, True, False, False]
    assert json.loads(done.stdout)["notes"] == [
        "3 items that nobody chose in training have zeros (1, 4, 5)"
    ]


def test_random_vectors_have_a_seed(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        done = embed("--from", "random", "--num-items", 50, "--width", 400, "--seed", seed,
                     "--out", tmp_path / f"{name}.npy")  # fmt: skip
        assert done.exit_code == 0, done.output
    one, same, other = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=0.2)  # 400 squares


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--from", "text", "--num-items", "3"], 2, "--from text takes --data-dir or --texts"),
        (["--from", "als", "--texts", "x"], 2, "--from als takes --data-dir"),
        (["--from", "random", "--num-items", "3"], 2, "--out FILE is missing"),
        (["--from", "random", "--num-items", "3", "--out", "x.npy", "--alpha", "2"], 2,
         "--alpha does not go with --from random"),
        (["--from", "als", "--data-dir", "x", "--engine", "flax"], 2,
         "--from als has the engines exact, implicit"),
        (["--from", "text", "--data-dir", "x"], 2, "--from text needs --model FOLDER"),
        (["--from", "als", "--data-dir", "absent", "--out", "absent.npy"], 1, "absent"),
        (["--from", "text", "--texts", "absent.txt", "--model", "m", "--out", "o.npy"], 1,
         "absent.txt"),
    ],
)  # fmt: skip
def test_mistakes_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, told: str
):
    monkeypatch.chdir(tmp_path)
    done = embed(*arguments)
    assert done.exit_code == code, done.output
    assert told in done.stderr
    assert not list(tmp_path.iterdir())


def test_vectors_of_what_stands_near_what(prepared: Path, tmp_path: Path):
    out = tmp_path / "near.npy"
    done = embed("--from", "cooccurrence", "--data-dir", prepared, "--width", 3, "--out", out)
    assert done.exit_code == 0, done.output
    vectors, about = np.load(out), json.loads(out.with_suffix(".json").read_text())
    # In the training split, 0 comes before 2, and 2 before 3; 4 is held out, 1 and 5 are absent.
    assert np.flatnonzero(vectors.any(axis=1)).tolist() == [0, 2, 3]
    assert about["method"] == "cooccurrence" and about["alone"]["items"] == [1, 4, 5]
    assert about["window"] == 5 and about["catalogue"]
    assert "3 items that stand near no other" in done.stdout
    refused = embed("--from", "als", "--data-dir", prepared, "--window", 2)
    assert refused.exit_code == 2 and "--window does not go with --from als" in refused.output
