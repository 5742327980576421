"""Text embeddings: against transformers' own hidden states, and resumed to the same bytes."""

import json
import resource
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientids_flax.embed.encoders import pooled
from efficientids_flax.embed.items import texts_of_file
from efficientids_flax.embed.output import Output
from efficientids_flax.embed.texts import TextOptions, batches_of, embed_texts, room_for

WIDTH = 6


class Words:
    """A tokenizer: a token a letter, and one at the end that stays when a text is cut."""

    def __call__(self, texts: list[str], *, truncation: bool = False, max_length: int = 0,
                 verbose: bool = True) -> dict[str, list[list[int]]]:  # fmt: skip
        del verbose
        found = [[ord(letter) for letter in text] + [1] for text in texts]
        if truncation:
            found = [[*ids[: max_length - 1], 1] if len(ids) > max_length else ids for ids in found]
        return {"input_ids": found}


class Sums:
    """An encoder whose vectors are known; it fails at the batch that it is told to."""

    width, words, most, about = WIDTH, 128, 64, {"engine": "sums"}

    def __init__(self, fails_at: int | None = None) -> None:
        self.batches: list[np.ndarray] = []
        self.fails_at = fails_at

    def encode(self, ids: np.ndarray, lengths: np.ndarray, pooling: str) -> np.ndarray:
        if len(self.batches) == self.fails_at:
            raise KeyboardInterrupt
        self.batches.append(ids)
        there = np.arange(ids.shape[1]) < lengths[:, None]
        sums = (ids * there).sum(1)
        return np.stack([sums * (axis + 1) for axis in range(WIDTH)], 1).astype(np.float32)


TEXTS = ["ab", None, "c", "abcdefgh" * 3, "", "zz", "y" * 100]


def run(path: Path, encoder: Any, texts: Any = TEXTS, overwrite: bool = False, **fields: Any):
    options = TextOptions(**{"batch_size": 2, **fields})
    return embed_texts(texts, Words(), encoder, Output(path, overwrite=overwrite), options, {})


def test_each_item_has_the_vector_of_its_text(tmp_path: Path):
    found = run(tmp_path / "e.npy", Sums(), max_length=30)
    rows = np.load(tmp_path / "e.npy")
    assert rows.dtype == np.float32
    wanted = [ord("a") + ord("b") + 1, 0, ord("c") + 1, 3 * sum(map(ord, "abcdefgh")) + 1, 0,
              2 * ord("z") + 1, 29 * ord("y") + 1]  # fmt: skip
    np.testing.assert_array_equal(rows[:, 0], wanted)
    assert found.without_text == [1, 4]
    assert found.cut == 1
    assert found.notes() == ["2 items without text have zeros (1, 4)",
                             "1 texts were cut to the longest length"]  # fmt: skip
    about = json.loads((tmp_path / "e.json").read_text())
    assert about["without_text"] == {"count": 2, "items": [1, 4]}
    assert (about["items"], about["width"], about["max_length"]) == (7, WIDTH, 30)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.json", "e.npy"]


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
):
    monkeypatch.setattr("efficientids_flax.embed.texts.KEPT_EVERY", 0.0)
    run(tmp_path / "whole.npy", Sums())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed.npy", Sums(fails_at))
    assert not (tmp_path / "killed.npy").exists()
    encoder = Sums()
    found = run(tmp_path / "killed.npy", encoder)
    assert found.resumed == fails_at
    assert len(encoder.batches) == found.batches - fails_at
    for suffix in ("npy", "json"):
        one, other = (tmp_path / f"{name}.{suffix}" for name in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes()


def test_the_part_of_another_run_is_not_gone_on_with(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "e.npy", Sums(1))
    with pytest.raises(ValueError, match=r"e\.npy\.partial: was begun with another pooling"):
        run(tmp_path / "e.npy", Sums(), pooling="last")
    with pytest.raises(ValueError, match="another texts"):
        run(tmp_path / "e.npy", Sums(), texts=["other"])


def test_a_run_that_was_killed_between_the_names_of_its_files_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("efficientids_flax.embed.texts.KEPT_EVERY", 0.0)
    run(tmp_path / "whole.npy", Sums())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", _killed_after("e.json", Path.replace))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "e.npy", Sums())
    assert (tmp_path / "e.json").exists() and not (tmp_path / "e.npy").exists()
    assert run(tmp_path / "e.npy", Sums()).resumed
    assert (tmp_path / "e.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def _killed_after(name: str, found: Any) -> Any:
    def replace(path: Path, target: Path) -> None:
        found(path, target)
        if target.name == name:
            raise KeyboardInterrupt

    return replace


@pytest.mark.parametrize("at_once", [True, False])
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path: Path, at_once: bool):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    output = Output(tmp_path / "e.npy")
    try:
        with pytest.raises(OSError, match=r"e\.npy: cannot be written \("):
            if at_once:
                output.write(np.zeros((9000, 4)), {})
            else:
                output.begin((9000, 4), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)
    assert not list(tmp_path.iterdir())


def test_what_is_there_stays_unless_asked(tmp_path: Path):
    (tmp_path / "e.json").write_text("mine")
    with pytest.raises(FileExistsError, match=r"e\.json: exists already"):
        run(tmp_path / "e.npy", Sums())
    run(tmp_path / "e.npy", Sums(), overwrite=True)
    assert json.loads((tmp_path / "e.json").read_text())["method"] == "text"


def test_normalized_vectors_have_length_one(tmp_path: Path):
    run(tmp_path / "e.npy", Sums(), normalize=True)
    lengths = np.linalg.norm(np.load(tmp_path / "e.npy"), axis=1)
    np.testing.assert_allclose(lengths, [1, 0, 1, 1, 0, 1, 1], rtol=1e-6)


def test_mistakes_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="no item has a text"):
        run(tmp_path / "e.npy", Sums(), texts=[None, ""])
    with pytest.raises(ValueError, match="max_length: found 65, the model takes 64 tokens"):
        run(tmp_path / "e.npy", Sums(), max_length=65)
    with pytest.raises(ValueError, match="gives token 233, and the model knows those below 128"):
        run(tmp_path / "e.npy", Sums(), texts=["caf\u00e9"])
    with pytest.raises(ValueError, match="pooling: found 'max', there are mean, last"):
        TextOptions("max")
    with pytest.raises(ValueError, match=r"ends in \.npy"):
        Output(tmp_path / "e.txt")


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 7))
def test_batches_have_every_text_once_the_longest_first(lengths: list[int], size: int):
    found = batches_of(lengths, size)
    flat = [item for batch in found for item in batch.tolist()]
    assert sorted(flat) == [item for item, length in enumerate(lengths) if length]
    assert [lengths[item] for item in flat] == sorted((n for n in lengths if n), reverse=True)
    assert all(len(batch) <= size for batch in found)


@given(st.integers(1, 600))
def test_batches_have_few_widths(length: int):
    assert length <= room_for(length, 512 if length <= 512 else 600) <= max(1.5 * length, 16)
    assert len({room_for(n, 512) for n in range(1, 513)}) == 11


@given(st.integers(0, 5), st.sampled_from(["mean", "last"]))
def test_pooling_looks_at_no_padding(length: int, pooling: str):
    hidden = np.random.default_rng(length).normal(size=(1, 5, 3)).astype(np.float32)
    hidden[:, length:] = np.nan
    found = np.asarray(pooled(hidden, np.array([length]), pooling))[0]
    wanted = np.zeros(3)
    if length:
        wanted = hidden[0, :length].mean(0) if pooling == "mean" else hidden[0, length - 1]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_text_is_a_line_whatever_it_holds(tmp_path: Path):
    """U+2028 and a form feed end no line, in texts as in JSON."""
    texts = ["one\u2028two", "three\x0cfour", "five"]
    (tmp_path / "titles.txt").write_text("\n".join(texts), encoding="utf-8")
    lines = [json.dumps({"title": text}, ensure_ascii=False) for text in texts[:1]]
    (tmp_path / "titles.jsonl").write_text("\r\n".join([*lines, "{}", ""]), encoding="utf-8")
    assert texts_of_file(tmp_path / "titles.txt") == texts
    assert texts_of_file(tmp_path / "titles.jsonl") == [texts[0], None]
