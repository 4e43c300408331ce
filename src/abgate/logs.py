"""Structured logs: one JSON object a line on standard error, readable text in development mode."""

import sys

import structlog

from abgate.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Set the format of every log line of this process."""
    is_development = settings.mode == "development"
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if is_development else [structlog.processors.dict_tracebacks]),
            structlog.dev.ConsoleRenderer(colors=False) if is_development else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
