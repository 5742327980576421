"""Log lines, for people or as JSON. By default, none shows the content of a request."""

import json
import logging
import sys
import time
from typing import Any

LOGGER = "efficientids_flax.serve"
ABOUT = "about"  # attribute of a log record: a dict of further fields


class JsonLines(logging.Formatter):
    """One JSON object per line: time, level, message, and the record's further fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the line."""
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
    """The same as plain text, for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the line; values are escaped so that none can start a new line."""
        about = getattr(record, ABOUT, {})
        told = [_time(record), record.levelname.lower(), record.getMessage()]
        told += [f"{key}={_plain(value)}" for key, value in about.items()]
        line = " ".join(told)
        if record.exc_info:
            line += f"\n{self.formatException(record.exc_info)}"
        return line


def start_logs(*, as_json: bool, level: int) -> logging.Handler:
    """Log to standard error, from this level on; gives the handler."""
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
