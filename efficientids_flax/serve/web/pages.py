"""The pages for people: a page to try recommendations, and documentation of the paths.

They load nothing from other hosts. Foreign text is escaped, never inserted as HTML.
"""

import base64
import hashlib
import html
import json
import re
import shlex
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi

from efficientids_flax.serve.answers import Snapshot
from efficientids_flax.serve.web.messages import Problem
from efficientids_flax.serve.web.tokens import ADMIN_TOKEN, TOKEN, Secrets

ADMIN = {"put_set", "remove_set", "reload"}
FOLDER = "efficientids_flax.serve.web"
OPEN = {"healthz", "readyz", "metrics"}


def start_page() -> Response:
    """The page at `/`."""
    return _page((files(FOLDER) / "page.html").read_text())


def describe(app: FastAPI, snapshot: Snapshot) -> dict[str, Any]:
    """The OpenAPI document of an application, with example items of the catalogue."""
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = found["components"]["schemas"]
    schemas["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    given = _examples(snapshot)
    for _, operation in _operations(found):
        name = operation["operationId"]
        if name in given:
            content = operation["requestBody"]["content"]["application/json"]
            content["example"] = given[name]
        if name not in OPEN:
            operation["security"] = [{"admin" if name in ADMIN else "user": []}]
        for parameter in operation.get("parameters", []):
            parameter["example"] = "in-stock"
    told = {"type": "http", "scheme": "bearer"}
    found["components"]["securitySchemes"] = {"user": told, "admin": told}
    return found


def documentation(schema: dict[str, Any], base: str, secrets: Secrets) -> Response:
    """The page at `/docs`: each path with its fields and a curl command to paste."""
    parts = []
    for (method, path), operation in _operations(schema):
        rows = "".join(_fields(schema, operation))
        fields = f"<table><tr><th>field<th>is<th>what{rows}</table>" if rows else ""
        parts.append(
            f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
            f"<p>{html.escape(operation['summary'])}."
            f"<pre>{html.escape(_command(method, path, operation, base, secrets))}</pre>{fields}"
        )
    page = (files(FOLDER) / "docs.html").read_text()
    return _page(page.replace("<!-- paths -->", "\n".join(parts)))


def _operations(schema: dict[str, Any]) -> list[tuple[tuple[str, str], dict[str, Any]]]:
    return [
        ((method, path), operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    ]


def _examples(snapshot: Snapshot) -> dict[str, Any]:
    """Example request bodies by operation."""
    catalogue = snapshot.export.catalogue
    some = [catalogue.id(row) for row in range(min(3, catalogue.num_items))]
    history = [{"items": some}]
    return {
        "recommend": {"histories": history, "k": min(5, catalogue.num_items), "exclude_seen": True},
        "score": {"histories": history, "candidates": some[:2]},
        "put_set": {"items": some},
    }


def _command(method: str, path: str, operation: dict[str, Any], base: str, secrets: Secrets) -> str:
    """The curl command for a path."""
    words = ["curl", "-sS"]
    if method != "get":
        words += ["-X", method.upper()]
    name = operation["operationId"]
    lines = [shlex.join([*words, base + path.replace("{name}", "in-stock")])]
    if name in ADMIN:
        lines.append(f'-H "Authorization: Bearer ${ADMIN_TOKEN}"')
    elif name not in OPEN and secrets.user is not None:
        lines.append(f'-H "Authorization: Bearer ${TOKEN}"')
    if "requestBody" in operation:
        body = json.dumps(operation["requestBody"]["content"]["application/json"]["example"])
        lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(body)}"]
    return " \\\n  ".join(lines)


def _fields(schema: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    """Table rows for the fields of a body; nested fields are named behind a dot."""
    if "requestBody" not in operation:
        return []
    rows: list[str] = []

    def walk(part: dict[str, Any], before: str) -> None:
        body = schema["components"]["schemas"][part["$ref"].rpartition("/")[2]]
        for name, field in body["properties"].items():
            needed = name in body.get("required", ())
            inner = field.get("items", {}) if "$ref" in field.get("items", {}) else None
            told = html.escape(field.get("description", "" if inner is None else "one or many"))
            kind = html.escape(_kind(field) + (", needed" if needed else ""))
            rows.append(f"<tr><td><code>{html.escape(before + name)}</code><td>{kind}<td>{told}")
            if inner is not None:
                walk(inner, f"{before}{name}[].")

    walk(operation["requestBody"]["content"]["application/json"]["schema"], "")
    return rows


def _kind(field: dict[str, Any]) -> str:
    """Describe a field's type in words."""
    choices = [one for one in field.get("anyOf", []) if one.get("type") != "null"]
    if choices:
        return " or ".join(map(_kind, choices))
    if field.get("type") == "array":
        most = f"at most {field['maxItems']} " if "maxItems" in field else ""
        return f"list of {most}{_kind(field['items'])}"
    span = [f"{sign} {field[key]}" for key, sign in (("minimum", "≥"), ("maximum", "≤"))
            if key in field]  # fmt: skip
    return " ".join([field.get("type", "object"), *span])


def _page(text: str) -> Response:
    """An HTML response that may run only the styles and scripts in it."""
    allowed = ["default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'",
               "frame-ancestors 'none'", "img-src data:"]  # fmt: skip
    for kind in ("style", "script"):
        parts = re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
                  for part in parts]  # fmt: skip
        if hashes:
            allowed.append(f"{kind}-src " + " ".join(f"'sha256-{one}'" for one in hashes))
    return Response(
        text, media_type="text/html", headers={"Content-Security-Policy": "; ".join(allowed)}
    )
