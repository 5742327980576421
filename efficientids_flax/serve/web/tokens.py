"""Bearer tokens: where they are read from, and what each allows."""

import hashlib
import hmac
import os
import re
from dataclasses import dataclass
from pathlib import Path

from efficientids_flax.serve.web.problems import ProblemError

TOKEN, ADMIN_TOKEN = "EFFICIENTIDS_TOKEN", "EFFICIENTIDS_ADMIN_TOKEN"
GUARDED = "/v1/"  # paths that need a token, if one is set; others reveal no data
ADMIN = (  # method, path
    ("POST", re.compile(r"/v1/reload")),
    ("PUT", re.compile(r"/v1/sets/.*")),
    ("DELETE", re.compile(r"/v1/sets/.*")),
)


@dataclass(frozen=True)
class Secrets:
    """SHA-256 digests of a server's tokens.

    Attributes:
        user: allows asking; None: everybody may ask.
        admin: also allows changes to what is served; None: nobody may change it.
    """

    user: bytes | None = None
    admin: bytes | None = None

    def __repr__(self) -> str:
        return (
            f"Secrets(user={'set' if self.user else None}, admin={'set' if self.admin else None})"
        )

    def check(self, method: str, path: str, authorization: bytes | None) -> None:
        """Raise a `ProblemError` if a request is not allowed.

        Args:
            method, path: method and path of the request.
            authorization: its Authorization header; None if it has none.
        """
        admin = any(method == name and form.fullmatch(path) for name, form in ADMIN)
        if not path.startswith(GUARDED) or (self.user is None and not admin):
            return
        if admin and self.admin is None:
            raise ProblemError(403, f"this server has no token for changes ({ADMIN_TOKEN})")
        given = None
        if authorization is not None and authorization[:7].lower() == b"bearer ":
            given = _digest(authorization[7:].strip())
        is_admin, is_user = _same(given, self.admin), _same(given, self.user)
        if is_admin or (is_user and not admin):
            return
        if is_user:
            raise ProblemError(403, "this token may ask, but not change what is served")
        detail = "a token is needed: Authorization: Bearer ..."
        if given is not None:
            detail = "the token is not this server's"
        raise ProblemError(401, detail, headers={"WWW-Authenticate": "Bearer"})


def read_secrets(token_file: str | None, admin_token_file: str | None) -> Secrets:
    """Read tokens from files, or from the environment if no file is given.

    Raises:
        OSError: a file cannot be read.
        ValueError: a token is malformed, or both are the same.
    """
    found = [_read(token_file, TOKEN), _read(admin_token_file, ADMIN_TOKEN)]
    if found[0] is not None and found[0] == found[1]:
        raise ValueError(
            f"{TOKEN} and {ADMIN_TOKEN}: are the same, so that whoever asks could change the server"
        )
    return Secrets(*found)


def _read(file: str | None, name: str) -> bytes | None:
    text = os.environ.get(name) if file is None else Path(file).read_text()
    if text is None:
        return None
    where = name if file is None else file
    if not re.fullmatch(r"[!-~]{8,}", text.strip()):
        raise ValueError(f"{where}: expected a token of 8 or more letters, digits and signs, "
                         "without spaces")  # fmt: skip
    return _digest(text.strip().encode())


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _same(given: bytes | None, wanted: bytes | None) -> bool:
    return given is not None and wanted is not None and hmac.compare_digest(given, wanted)
