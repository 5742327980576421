"""Errors of requests as problem documents (RFC 9457) that name the field."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

CONTENT_TYPE = "application/problem+json"
SHOWN = 20  # fields that are named; the rest are counted
TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}  # differ before Python 3.13


class Field(NamedTuple):
    """One error in a request.

    Attributes:
        detail: what was found and what was expected.
        pointer: where in the body, a JSON Pointer (RFC 6901) after `#`; or
        parameter: the name of a path parameter.
    """

    detail: str
    pointer: str | None = None
    parameter: str | None = None


class ProblemError(Exception):
    """A request that is refused.

    Attributes:
        status: HTTP status.
        detail: one sentence for people.
        fields: the fields that are wrong, if known.
        headers: further headers of the response.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        fields: Sequence[Field] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.fields = status, detail, fields
        self.headers = dict(headers or {})

    def document(self, request_id: str | None = None) -> bytes:
        """The body of the response."""
        found: dict[str, Any] = {
            "type": "about:blank",
            "title": TITLES.get(self.status) or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.fields:
            found["errors"] = [
                {key: value for key, value in one._asdict().items() if value is not None}
                for one in self.fields[:SHOWN]
            ]
        if len(self.fields) > SHOWN:
            found["more_errors"] = len(self.fields) - SHOWN
        if request_id is not None:
            found["request_id"] = request_id
        return json.dumps(found).encode()  # ASCII: a lone surrogate cannot be encoded as UTF-8


def pointer(places: Sequence[int | str]) -> str:
    """The JSON Pointer of a place in the body."""
    parts = (str(place).replace("~", "~0").replace("/", "~1") for place in places)
    return "#" + "".join(f"/{part}" for part in parts)


def of_validation(errors: Sequence[Mapping[str, Any]]) -> ProblemError:
    """The problem for the errors FastAPI found in a request."""
    fields: list[Field] = []
    for error in errors:
        kind, (where, *places) = error["type"], error["loc"]
        if kind == "json_invalid":
            told = error.get("ctx", {}).get("error", "")
            return ProblemError(400, f"the body is no JSON: {told} at character {places[0]}")
        detail = error["msg"]
        if kind in ("int_type", "string_type") and places and places[-1] in ("int", "str"):
            places, detail = places[:-1], "expected an item: a text or a whole number"
        elif kind == "missing":
            detail = "is needed"
        elif kind == "extra_forbidden":
            detail = "is not known"
        one = Field(detail, pointer(places)) if where == "body" else Field(
            detail, parameter=".".join(map(str, places)))  # fmt: skip
        if one not in fields:
            fields.append(one)
    first = fields[0]
    named = first.pointer if first.parameter is None else first.parameter
    rest = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return ProblemError(422, f"{named}: {first.detail}{rest}", fields)
