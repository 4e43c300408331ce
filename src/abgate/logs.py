"""Structured logs: one JSON object a line on standard error."""

import logging
import sys
from contextlib import suppress

import msgspec
import structlog
from structlog.typing import Processor


def configure_logs() -> None:
    """Have every log line written as JSON, those of libraries too: of the HTTP server on what is no HTTP, for one.

    To be called first of all: the library's own default draws tracebacks with their local variables, which takes a
    second each on the event loop, and would write tokens and subjects into the log.
    """
    prepare: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
    ]
    render = structlog.processors.JSONRenderer(serializer=_to_json)
    structlog.configure(
        processors=[*prepare, render],
        logger_factory=structlog.WriteLoggerFactory(_StandardError()),  # type: ignore[arg-type]  # it only writes
    )
    formatter = structlog.stdlib.ProcessorFormatter
    of_libraries = logging.StreamHandler()
    of_libraries.setFormatter(
        formatter(processors=[formatter.remove_processors_meta, render], foreign_pre_chain=prepare)
    )
    logging.basicConfig(handlers=[of_libraries], level=logging.WARNING)


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
