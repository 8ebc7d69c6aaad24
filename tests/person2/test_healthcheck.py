"""Heartbeats, what the health check makes of them, and a real bot that writes them."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from core.errors import Unavailable
from person2.cli.doctor import alive
from person2.healthcheck import STALE_SECONDS, HealthSource, beat, folder, heartbeats
from tests.slack_server import APP_TOKEN, BOT_TOKEN, SlackServer

ROOT = Path(__file__).parents[2]
QUICK = 0.02


async def until(true: Callable[[], bool], *, seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - a file or a log has no event to wait for
            await asyncio.sleep(0.01)


def bot(name: str = "discord", *, ready: bool = True, trouble: str | None = None) -> HealthSource:
    return HealthSource(name=name, ready=lambda: ready, trouble=lambda: trouble)


@asynccontextmanager
async def beating(home: Path, *sources: HealthSource) -> AsyncIterator[None]:
    """Bots of one process, until the block ends; entered once each has written its first heartbeat."""
    known = len(heartbeats(home))
    task = asyncio.create_task(beat(home, sources, every=QUICK))
    await until(lambda: len(heartbeats(home)) == known + len(sources))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_heartbeat_says_what_the_bot_knows(tmp_path: Path) -> None:
    """Not connected, connected, mute; the file goes with the bot, and only its owner may read it."""
    state: dict[str, Any] = {"ready": False, "trouble": None}
    source = HealthSource(name="discord", ready=lambda: state["ready"], trouble=lambda: state["trouble"])
    home = tmp_path / "home"
    async with beating(home, source):
        (first,) = heartbeats(home)
        assert first.fault == "discord: the bot is not connected; read its log."
        state["ready"] = True
        await until(lambda: heartbeats(home)[0].fault is None)
        state["trouble"] = "cannot post (the last 3 posts failed)"
        await until(lambda: "cannot post (the last 3 posts failed)" in str(heartbeats(home)[0].fault))
        assert (folder(home) / "discord.json").stat().st_mode & 0o777 == 0o600
    assert heartbeats(home) == []


async def test_every_bot_of_a_home_has_its_own(tmp_path: Path) -> None:
    """Two platforms, and two bots of one platform in two processes: one that ends takes only its own file along."""
    async with beating(tmp_path, bot("discord"), bot("slack")):
        async with beating(tmp_path, bot("discord", ready=False)):
            assert [(each.name, each.ready) for each in heartbeats(tmp_path)] == [
                ("discord", True),
                ("discord-2", False),
                ("slack", True),
            ]
        assert [each.name for each in heartbeats(tmp_path)] == ["discord", "slack"]
        assert [each.name for each in heartbeats(tmp_path, "slack")] == ["slack"]


async def test_a_killed_bot_is_noticed_and_replaced(tmp_path: Path) -> None:
    """Its file stays and grows old; the next bot of the platform takes it over."""
    folder(tmp_path).mkdir(parents=True)
    killed = folder(tmp_path) / "slack.json"
    killed.write_text(json.dumps({"ready": True, "trouble": None}))
    old = time.time() - STALE_SECONDS - 5
    os.utime(killed, (old, old))
    assert "last heartbeat was 3" in str(heartbeats(tmp_path)[0].fault)
    task = asyncio.create_task(beat(tmp_path, [bot("slack")], every=QUICK))
    await until(lambda: heartbeats(tmp_path)[0].fault is None)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert heartbeats(tmp_path) == []


async def test_systemd_is_told(tmp_path: Path) -> None:
    """READY at once, the watchdog is reset though the platform is away, STOPPING at the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(30)
        task = asyncio.create_task(beat(tmp_path, [bot(ready=False)], notify=str(tmp_path / "notify"), every=QUICK))
        told = [await asyncio.to_thread(systemd.recv, 200) for _ in range(3)]
        assert told == [b"READY=1"] + [b"WATCHDOG=1\nSTATUS=connecting"] * 2
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        while (last := systemd.recv(200)).startswith(b"WATCHDOG"):
            pass
        assert last == b"STOPPING=1"


async def test_a_full_disk_does_not_stop_the_bot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A heartbeat that cannot be written is a warning; the check will fail, the bot goes on."""
    (tmp_path / "home").write_text("a file where the folder should be")
    task = asyncio.create_task(beat(tmp_path / "home", [bot()], every=QUICK))
    await until(lambda: "no heartbeat can be written" in caplog.text)
    assert not task.done()
    task.cancel()


def test_the_check_says_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing there, a fresh heartbeat, a mute bot beside it, an old heartbeat; one platform alone can be asked for."""
    monkeypatch.setenv("PERSON2_HOME", str(tmp_path))
    with pytest.raises(Unavailable, match="No bot is running here"):
        alive()
    folder(tmp_path).mkdir()
    discord, slack = folder(tmp_path) / "discord.json", folder(tmp_path) / "slack.json"
    discord.write_text(json.dumps({"ready": True, "trouble": None}))
    alive()
    assert capsys.readouterr().out.startswith("OK, last heartbeat ")
    slack.write_text(json.dumps({"ready": True, "trouble": "cannot post (a post has been waiting for 130 s)"}))
    with pytest.raises(Unavailable, match=r"^slack: connected, but cannot post"):
        alive()
    alive("discord")
    old = time.time() - STALE_SECONDS - 5
    os.utime(discord, (old, old))
    with pytest.raises(Unavailable, match=r"discord: the last heartbeat was \d\d s ago"):
        alive("discord")


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
            "PERSON2_LOG_FORMAT": "json",
        }

        async def check() -> int:
            asked = await asyncio.create_subprocess_exec(
                *program, "alive", cwd=tmp_path, env=environment, stdout=-3, stderr=-3
            )
            return await asked.wait()

        bot = await asyncio.create_subprocess_exec(*program, "slack", cwd=tmp_path, env=environment, stderr=-1)
        try:
            assert await check() == 1
            await until(lambda: any(each.ready for each in heartbeats(tmp_path)), seconds=120)
            assert await check() == 0
            bot.send_signal(signal.SIGTERM)
            _, log = await asyncio.wait_for(bot.communicate(), 120)
        finally:
            with suppress(ProcessLookupError):
                bot.kill()
    assert bot.returncode == 0
    assert heartbeats(tmp_path) == []
    lines = [json.loads(line) for line in log.decode().splitlines()]
    assert "connected to Slack by Socket Mode" in [line["message"] for line in lines]
    assert "secret" not in log.decode()
