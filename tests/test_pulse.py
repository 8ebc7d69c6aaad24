"""The sign of life, what the health check makes of it, and a real bot that leaves it."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from core.errors import Unavailable
from person2.care import alive
from person2.pulse import STALE_SECONDS, age, beat, sign_of_life
from tests.slack_server import APP_TOKEN, BOT_TOKEN, SlackServer

ROOT = Path(__file__).parents[1]
QUICK = 0.02


async def until(true: Callable[[], bool], *, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - a file or a log has no event to wait for
            await asyncio.sleep(0.01)


async def test_the_sign_is_there_only_while_connected(tmp_path: Path) -> None:
    """None before the first connection; it grows old while the platform is away, and goes with the bot."""
    connected = asyncio.Event()
    home = tmp_path / "home"
    task = asyncio.create_task(beat(home, ready=connected.is_set, every=QUICK))
    await asyncio.sleep(5 * QUICK)
    assert age(home) is None
    connected.set()
    await until(lambda: age(home) is not None)
    os.utime(sign_of_life(home), (0, 0))
    await until(lambda: (age(home) or 1e9) < STALE_SECONDS)
    connected.clear()
    for _ in range(100):  # the last touch may still be on its way
        os.utime(sign_of_life(home), (0, 0))
        await asyncio.sleep(5 * QUICK)
        if (age(home) or 0) > STALE_SECONDS:
            break
    assert (age(home) or 0) > STALE_SECONDS
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert age(home) is None


async def test_systemd_is_told(tmp_path: Path) -> None:
    """READY at once, the watchdog is petted though the platform is away, STOPPING at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        task = asyncio.create_task(beat(tmp_path, ready=lambda: False, notify=str(tmp_path / "notify"), every=QUICK))
        told = [await asyncio.to_thread(systemd.recv, 200) for _ in range(3)]
        assert told == [b"READY=1"] + [b"WATCHDOG=1\nSTATUS=connecting"] * 2
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        while (last := systemd.recv(200)).startswith(b"WATCHDOG"):
            pass
        assert last == b"STOPPING=1"


async def test_a_full_disk_does_not_stop_the_bot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A sign that cannot be left is a warning; the check will fail, the bot goes on."""
    (tmp_path / "home").write_text("a file where the folder should be")
    task = asyncio.create_task(beat(tmp_path / "home", ready=lambda: True, every=QUICK))
    await until(lambda: "no sign of life" in caplog.text)
    assert not task.done()
    task.cancel()


def test_the_check_says_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing there, a fresh sign, an old one."""
    monkeypatch.setenv("PERSON2_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match="No bot runs here"):
        alive()
    sign_of_life(tmp_path).touch()
    alive()
    assert capsys.readouterr().out.startswith("Well, ")
    old = time.time() - STALE_SECONDS - 5
    os.utime(sign_of_life(tmp_path), (old, old))
    with pytest.raises(Unavailable, match=r"last well \d\d s ago"):
        alive()


async def test_a_running_bot_is_well_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """`person2 slack` as a service: JSON log without tokens, healthy once connected, ends with 0 on SIGTERM."""
    program = (sys.executable, "-m", "person2")
    async with SlackServer("socket") as slack:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PERSON2_HOME": str(tmp_path),
            "SLACK_BOT_TOKEN": BOT_TOKEN,
            "SLACK_APP_TOKEN": APP_TOKEN,
            "SLACK_API_URL": slack.api_url,
            "LOG_FORMAT": "json",
        }

        async def check() -> int:
            asked = await asyncio.create_subprocess_exec(
                *program, "alive", cwd=tmp_path, env=environment, stdout=-3, stderr=-3
            )
            return await asked.wait()

        bot = await asyncio.create_subprocess_exec(*program, "slack", cwd=tmp_path, env=environment, stderr=-1)
        try:
            assert await check() == 1
            await until(lambda: age(tmp_path) is not None, seconds=120)
            assert await check() == 0
            bot.send_signal(signal.SIGTERM)
            _, log = await asyncio.wait_for(bot.communicate(), 120)
        finally:
            with suppress(ProcessLookupError):
                bot.kill()
    assert bot.returncode == 0
    assert not sign_of_life(tmp_path).exists()
    lines = [json.loads(line) for line in log.decode().splitlines()]
    assert "connected to Slack by Socket Mode" in [line["message"] for line in lines]
    assert "secret" not in log.decode()
