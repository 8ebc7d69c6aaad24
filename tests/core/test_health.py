"""Whether posts get through, as the bots report them."""

from contextlib import nullcontext

import pytest

from core.health import FAILURES, RECENT_SECONDS, STUCK_SECONDS, PostHealth


class Ticks:
    """A clock in seconds that stands still until moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class NoPermission(Exception):
    """A platform refuses one post."""


def post(health: PostHealth, error: Exception | None = None) -> None:
    """One attempt, which ends as told; the error reaches the caller."""
    with pytest.raises(type(error)) if error else nullcontext(), health.attempt(refusals=(NoPermission,)):
        if error is not None:
            raise error


def test_failures_in_a_row_are_trouble_until_one_gets_through() -> None:
    """One failure is chance; several are not, for as long as they are news."""
    ticks = Ticks()
    health = PostHealth(clock=ticks)
    for _ in range(FAILURES - 1):
        post(health, OSError("down"))
    assert health.trouble() is None
    post(health, OSError("down"))
    assert health.trouble() == f"cannot post (the last {FAILURES} posts failed)"
    ticks.now += RECENT_SECONDS + 1
    assert health.trouble() is None
    post(health, OSError("down"))
    assert health.trouble() is not None
    post(health)
    assert health.trouble() is None


def test_a_refused_post_got_through() -> None:
    """No permission in one channel says nothing about the others."""
    health = PostHealth(clock=Ticks())
    for _ in range(2 * FAILURES):
        post(health, NoPermission())
    assert health.trouble() is None


def test_a_post_that_never_ends_is_trouble_unless_others_get_through() -> None:
    """A bot whose calls hang raises nothing and is mute all the same."""
    ticks = Ticks()
    health = PostHealth(clock=ticks)
    with health.attempt():
        ticks.now += STUCK_SECONDS + 1
        assert health.trouble() == f"cannot post (a post has been waiting for {STUCK_SECONDS + 1:.0f} s)"
        post(health)
        assert health.trouble() is None
        ticks.now += STUCK_SECONDS + 1
        assert health.trouble() is not None
    assert health.trouble() is None


def test_an_error_goes_on_to_the_caller() -> None:
    """Reporting changes nothing about how a bot handles its errors."""
    with pytest.raises(OSError, match="down"), PostHealth().attempt():
        raise OSError("down")
