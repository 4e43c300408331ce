"""Structured logs: one JSON object a line on standard error."""

import sys
from contextlib import suppress

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
        logger_factory=structlog.WriteLoggerFactory(_StandardError()),  # type: ignore[arg-type]  # it only writes
    )


class _StandardError:
    """Standard error, which gives up a line rather than raise: a full disk must not end the thread that says so."""

    def write(self, line: str) -> None:
        """Write what can be written."""
        with suppress(OSError):
            sys.stderr.write(line)

    def flush(self) -> None:
        """Flush what can be flushed."""
        with suppress(OSError):
            sys.stderr.flush()


def _to_json(event: object, **_options: object) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()
