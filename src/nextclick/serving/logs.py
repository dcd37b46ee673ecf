"""Logs as JSON, an object a line on stderr, with the request's id, and what it holds only if asked to."""

from __future__ import annotations

import datetime
import json
import logging
import sys

log = logging.getLogger("nextclick.serving")


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        entry = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "about", {}),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def set_up(level: str = "info") -> None:
    """Send the service's log, and the web server's, to stderr as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    for name in ("nextclick.serving", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level.upper())


def say(message: str, level: int = logging.INFO, **about: object) -> None:
    """Log a message with some facts about it."""
    log.log(level, message, extra={"about": about})
