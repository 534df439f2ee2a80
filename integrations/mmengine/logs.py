"""What this project warns of, in MMEngine's log."""

import logging

from mmengine.logging import print_log


class ToMMEngine(logging.Handler):
    """Hands records on to the logger of the runner at work."""

    def emit(self, record: logging.LogRecord) -> None:
        print_log(record.getMessage(), logger="current", level=record.levelno)


def log_to_mmengine() -> None:
    logger = logging.getLogger("sf2_plugin")
    kept = [handler for handler in logger.handlers if type(handler).__name__ != ToMMEngine.__name__]
    logger.handlers[:] = [*kept, ToMMEngine()]
