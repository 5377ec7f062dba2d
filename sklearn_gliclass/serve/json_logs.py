"""Logs as JSON, one object a line."""

import json
import logging
from datetime import datetime, timezone

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """Formatter that writes time, level, logger, message and the `extra` fields of a record as a JSON object.

    Examples
    --------
    >>> record = logging.makeLogRecord({"msg": "request", "levelname": "INFO", "name": "serve", "status": 200})
    >>> JsonFormatter().format(record)
    '{"time": "...", "level": "INFO", "logger": "serve", "message": "request", "status": 200}'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON; control characters are escaped."""
        fields = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


def write_json_logs(level: str = "INFO") -> None:
    """Write all logs and Python warnings of the process to standard error as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
