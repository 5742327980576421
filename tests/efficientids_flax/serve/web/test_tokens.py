"""Tokens of files and of the environment; they are shown nowhere."""

from pathlib import Path

import pytest

from efficientids_flax.serve.web import ADMIN_TOKEN, TOKEN, ProblemError, Secrets, read_secrets


def may(secrets: Secrets, method: str, path: str, token: str | None) -> int:
    """200, or the status that a request is refused with."""
    try:
        secrets.check(method, path, None if token is None else f"Bearer {token}".encode())
    except ProblemError as problem:
        assert token is None or token not in problem.detail
        return problem.status
    return 200


def test_of_a_file_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN, "of-the-environment")
    monkeypatch.setenv(ADMIN_TOKEN, "of-the-admin")
    (tmp_path / "token").write_text("of-the-file\n")
    found = read_secrets(str(tmp_path / "token"), None)
    ask, change = ("POST", "/v1/recommend"), ("POST", "/v1/reload")
    assert may(found, *ask, "of-the-file") == may(found, *ask, "of-the-admin") == 200
    assert may(found, *ask, "of-the-environment") == may(found, *ask, None) == 401
    assert may(found, *change, "of-the-admin") == 200
    assert may(found, *change, "of-the-file") == 403
    assert may(found, "GET", "/metrics", None) == 200
    assert "of-the" not in repr(found)


def test_without_tokens_who_asks_is_answered_and_nothing_changes(monkeypatch: pytest.MonkeyPatch):
    for name in (TOKEN, ADMIN_TOKEN):
        monkeypatch.delenv(name, raising=False)
    found = read_secrets(None, None)
    assert may(found, "POST", "/v1/recommend", None) == 200
    assert may(found, "DELETE", "/v1/sets/x", "anything") == 403


@pytest.mark.parametrize("text", ["", "short", "with space in it", "ünïcödé-token"])
def test_what_is_no_token(monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setenv(TOKEN, text)
    with pytest.raises(ValueError, match=r"EFFICIENTIDS_TOKEN: expected a token of 8") as error:
        read_secrets(None, None)
    assert not text or text not in str(error.value)


def test_who_asks_is_not_who_changes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN, "the-same-token")
    monkeypatch.setenv(ADMIN_TOKEN, "the-same-token")
    with pytest.raises(ValueError, match="are the same"):
        read_secrets(None, None)
