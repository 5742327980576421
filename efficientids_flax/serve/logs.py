"""Log lines, for people or as JSON; what a request asks for is in none of them by default."""

import json
import logging
import sys
import time
from typing import Any

LOGGER = "efficientids_flax.serve"
ABOUT = "about"  # of a record: a dict of what is known


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        found: dict[str, Any] = {
            "time": f"{_time(record)}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, ABOUT, {}),
        }
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str)


class Lines(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; what is in it cannot begin another one."""
        about = getattr(record, ABOUT, {})
        told = [_time(record), record.levelname.lower(), record.getMessage()]
        told += [f"{key}={_plain(value)}" for key, value in about.items()]
        line = " ".join(told)
        if record.exc_info:
            line += f"\n{self.formatException(record.exc_info)}"
        return line


def start_logs(*, as_json: bool, level: int) -> logging.Handler:
    """Write the server's lines to standard error, from this level on; gives their handler."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if as_json else Lines())
    for name in (LOGGER, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level if name == LOGGER else max(level, logging.WARNING))
    return handler


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}"


def _plain(value: Any) -> str:
    text = str(value)
    return text if text.isprintable() and " " not in text and text else json.dumps(text)
