"""How a failure is logged: one line, with a traceback the first time it happens there and whenever debugging is on."""

import logging
import traceback

from core.bounded_dict import BoundedDict

_seen: BoundedDict[None] = BoundedDict(1000)


def log_failure(log: logging.Logger, error: BaseException, message: str, *args: object) -> None:
    """Log `message` and the error in one line, with the traceback the first time.

    First means per process, kind of error and line that raised it: a server that is down for an hour does not fill the
    log. At debug level every traceback is logged.
    """
    frames = traceback.extract_tb(error.__traceback__)
    at = (frames[-1].filename, frames[-1].lineno) if frames else None
    first = _seen.put((type(error), at), None)
    described = " ".join(f"{type(error).__name__}: {error}".split())
    traceback_too = first or log.isEnabledFor(logging.DEBUG)
    log.error(f"{message}: %s", *args, described, exc_info=error if traceback_too else None)
