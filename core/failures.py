"""How a failure is logged: one line, with a traceback the first time it happens there and whenever debugging is on."""

import logging
import traceback

from core.bounded_dict import BoundedDict

_seen: BoundedDict[None] = BoundedDict(1000)


def log_failure(log: logging.Logger, error: BaseException, message: str, *args: object) -> None:
    """Log `message` and what `error` says of itself in one line; its traceback where it is news.

    The same kind of error raised at the same line is news once a process: a server that is down for an hour fills no
    log. At debug level every traceback is shown.
    """
    frames = traceback.extract_tb(error.__traceback__)
    at = (frames[-1].filename, frames[-1].lineno) if frames else None
    news = _seen.put((type(error), at), None)
    told = " ".join(f"{type(error).__name__}: {error}".split())
    traceback_too = news or log.isEnabledFor(logging.DEBUG)
    log.error(f"{message}: %s", *args, told, exc_info=error if traceback_too else None)
