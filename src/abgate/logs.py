"""Structured logs: one JSON object a line on standard error."""

import sys

import msgspec
import structlog


def configure_logs() -> None:
    """Have every log line written as JSON.

    To be called first of all: the library's own default draws tracebacks with their local variables, which takes a
    second each on the event loop, and would write tokens and subjects into the log.
    """
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def _to_json(event: object, **_options: object) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()
