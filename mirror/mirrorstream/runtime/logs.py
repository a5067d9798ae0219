"""Logs: a constant message with key/value pairs, as JSON for machines or in colour for a terminal.

Everything goes to stderr; stdout belongs to what a command answers.
"""

import logging
import sys
from typing import Any, Literal

import structlog

Format = Literal["json", "console"]


def _first_things_first(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """When, how bad and what come first in a line, whatever else it says."""
    first = {key: event.pop(key) for key in ("time", "level", "message") if key in event}
    return {**first, **event}


def default_format() -> Format:
    """`console` when stderr is a terminal, `json` otherwise."""
    return "console" if sys.stderr.isatty() else "json"


def configure(level: str = "info", log_format: Format | None = None) -> None:
    """Set up logging for the process, the standard library's included; call it once, from the command line."""
    log_format = log_format or default_format()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    last: list[structlog.typing.Processor]
    if log_format == "json":
        last = [
            structlog.processors.dict_tracebacks,
            structlog.processors.EventRenamer("message"),
            _first_things_first,
            structlog.processors.JSONRenderer(),
        ]
    else:
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), timestamp_key="time")]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # A connection that was retried is our own client's business, which logs it with the request's name.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
