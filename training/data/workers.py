"""Processes that share one job, and that end when it ends, however it ends.

Knows processes and signals, no job. Workers leave Ctrl-C to the main process; when that stops early, or is killed, they
end at once, so that nothing goes on writing people's words.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import FrameType, TracebackType
from typing import TypeVar

T = TypeVar("T")


class Workers:
    """`count` processes; with one, there is no pool and a task is done when it is submitted."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        if self.count > 1:
            context = get_context("spawn")
            self._heard, self._held = context.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(
                self.count, mp_context=context, initializer=_begin, initargs=(self._heard,)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        if kind is not None:
            self._held.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._held.close()
        self._heard.close()

    def submit(self, function: Callable[..., T], *arguments: object) -> "Future[T] | T":
        """The result, or a future of it, which raises what the task raised."""
        return self._pool.submit(function, *arguments) if self._pool is not None else function(*arguments)


def _begin(held: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(held,), daemon=True).start()


def _end_with(held: Connection) -> None:
    """Nothing is ever sent: the pipe ends when the main process closes it or dies."""
    try:
        held.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, SIGTERM unwinds as Ctrl-C does, so that temporary files are removed; exit status 143 as by the signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
