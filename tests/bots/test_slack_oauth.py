"""Many workspaces on one bot: each installs it over OAuth and is answered with its own token."""

import asyncio
import logging
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from bots.slack import OAuth
from core.errors import PermanentPlatformError
from core.memory import open_memory
from tests.bots.slack_talk import Talk, talk
from tests.slack_oauth_server import BLUE, CLIENT_ID, CLIENT_SECRET, RED, SlackOfMany
from tests.slack_server import Team

REVOKED = {"type": "tokens_revoked", "tokens": {"bot": [RED.bot_user]}}
UNINSTALLED = {"type": "app_uninstalled"}


class Browser:
    """What a member clicks with: keeps cookies, shows the sentence of the page it ends on."""

    def __init__(self, slack: SlackOfMany) -> None:
        self._slack = slack
        self.bot = slack.request_url.removesuffix("/slack/events")
        # Slack's state cookie is for TLS only; to this browser the bot's address is as good.
        jar = aiohttp.CookieJar(unsafe=True, treat_as_secure_origin=[self.bot])
        self.session = aiohttp.ClientSession(cookie_jar=jar)

    async def begins(self) -> str:
        """The link behind “Add to Slack”."""
        async with self.session.get(f"{self.bot}/slack/install") as page:
            found = re.search(r'href="([^"]+/oauth/v2/authorize[^"]*)"', await page.text())
            assert found is not None
            return unescape(found[1])

    async def opens(self, url: str) -> tuple[int, str]:
        async with self.session.get(url) as page:
            found = re.search(r"<p>(.*)</p>", await page.text())
            assert found is not None, await page.text()
            return page.status, unescape(found[1])

    async def installs(self, team: Team) -> tuple[int, str]:
        return await self.opens(f"{await self.begins()}&member_of={team.id}")


@asynccontextmanager
async def many(
    *lines: str, secret: str = CLIENT_SECRET, state_seconds: int = 600, redirect_url: str | None = None, **options: Any
) -> AsyncIterator[tuple[Talk, SlackOfMany, Browser]]:
    """A bot without a bot token, a Slack of two workspaces, and a browser."""
    slack = SlackOfMany(RED, BLUE)
    oauth = OAuth(client_id=CLIENT_ID, client_secret=secret, redirect_url=redirect_url, state_seconds=state_seconds)
    async with talk(
        "http", *lines, server=slack, **{"bot_token": "", "app_token": None, "oauth": oauth, **options}
    ) as t:
        browser = Browser(slack)
        try:
            yield t, slack, browser
        finally:
            await browser.session.close()


async def test_two_workspaces_install_it_and_each_is_answered_with_its_own_token() -> None:
    """From the install page to the answer, twice; the workspaces' talk is kept apart."""
    async with many("to red", "to blue", "to red again") as (t, slack, browser):
        assert await browser.installs(RED) == (
            200,
            "Person2 is installed in <TRED>: invite it to a channel with /invite @Person2.",
        )
        assert (await browser.installs(BLUE))[0] == 200
        assert slack.asked[0]["client_id"] == CLIENT_ID
        assert "chat:write" in slack.asked[0]["scope"]

        await slack.says("hi from red", channel="D1", team=RED)
        await slack.post(1)
        await slack.says(f"<@{BLUE.bot_user}> hi from blue", channel="C2", team=BLUE)
        await slack.post(2)
        await slack.says("still red", channel="D1", team=RED)
        assert [post.text for post in slack.posts[:2]] == ["to red", "to blue"]
        assert (await slack.post(3)).text == "to red again"
        assert slack.posters() == [RED.token, BLUE.token, RED.token]
        assert "blue" not in t.prompts[2]
        spaces = {item.message.conversation.space for item in t.memory.everything()}
        assert spaces == {RED.id, BLUE.id}


async def test_commands_belong_to_their_workspace() -> None:
    """A slash command is acknowledged, and names are looked up with the workspace's own token."""
    async with many("hello") as (_, slack, browser):
        await browser.installs(BLUE)
        await slack.commands("ask how are you?", channel="C2", team=BLUE)
        assert (await slack.post(1)).text == "hello"
        callers = [caller for (method, _), caller in zip(slack.calls, slack.callers, strict=True) if "users" in method]
        assert set(callers) == {BLUE.token}


async def test_a_workspace_that_did_not_install_it_gets_no_answer() -> None:
    """Its events are acknowledged and let go; who types the command is told why."""
    async with many() as (t, slack, browser):
        await browser.installs(RED)
        await slack.says("hi", channel="D2", team=BLUE)
        await t.quiet()
        assert t.prompts == []
        await slack.commands("ask how are you?", channel="C2", team=BLUE)
        assert "not installed in this workspace" in (await slack.post(1)).text


async def test_installing_asks_slack_nothing_before_an_acknowledgement() -> None:
    """Who sent an event is looked up in the database: `auth.test` is called once an installation, not once an event."""
    async with many() as (_, slack, browser):
        await browser.installs(RED)
        await slack.says("hi", channel="D1", team=RED)
        await slack.post(1)
        assert len(slack.called("auth.test")) == 1


async def test_a_token_that_expires_is_exchanged_in_time() -> None:
    """Where the app rotates its tokens the next one is fetched before the old one ends, once, and kept."""
    async with many("one", "two", "three") as (_, slack, browser):
        slack.lifetime = 3600
        await browser.installs(RED)
        said = [slack.says(f"hi {number}", channel=f"D{number}", team=RED) for number in range(2)]
        await asyncio.gather(*said)
        await slack.post(2)
        await slack.until(lambda: f"{RED.token}-next" in slack.installed)
        await slack.says("still there?", channel="D1", team=RED)
        await slack.post(3)
        assert slack.posters()[-1] == f"{RED.token}-next"
        grants = [call.get("grant_type") for call in slack.called("oauth.v2.access")]
        assert grants.count("refresh_token") == 1


async def test_a_token_that_cannot_be_exchanged_yet_is_used_on() -> None:
    """While Slack refuses the exchange the old token serves."""
    async with many("one") as (_, slack, browser):
        slack.lifetime = 3600
        await browser.installs(RED)
        slack.refreshable.clear()
        await slack.says("hi", channel="D1", team=RED)
        await slack.post(1)
        assert slack.posters() == [RED.token]


async def test_an_acknowledgement_waits_for_no_exchange() -> None:
    """While Slack takes its time over an exchange, events are stored and acknowledged, and answered with the old token;
    another workspace's exchange does not wait for it."""
    async with many("one", "two") as (t, slack, browser):
        slack.lifetime = 3600
        await browser.installs(RED)
        await browser.installs(BLUE)
        slack.slow = {f"xoxe-1-{RED.token}"}
        await slack.says("hi", channel="D1", team=RED)
        assert max(slack.ack_seconds) < 2
        await slack.post(1)
        await slack.says("hi", channel="D2", team=BLUE)
        await slack.until(lambda: f"{BLUE.token}-next" in slack.installed)
        await slack.post(2)
        assert slack.posters()[0] == RED.token
        slack.exchanges.set()
        await slack.until(lambda: f"{RED.token}-next" in slack.installed)
        await slack.until_known(lambda: f"{RED.token}-next" in _tokens(t))


async def test_an_expired_token_is_waited_for_after_the_acknowledgement() -> None:
    """A bot that comes back after its token expired stores what is said, and answers it with the next token."""
    async with many("one") as (_, slack, browser):
        slack.lifetime = -60
        await browser.installs(RED)
        slack.slow = {f"xoxe-1-{RED.token}"}
        slack.installed.clear()  # what has expired is refused
        await slack.says("hi", channel="D1", team=RED)
        slack.installed[RED.token] = RED
        slack.exchanges.set()
        await slack.post(1)
        assert slack.posters() == [f"{RED.token}-next"]


async def test_a_refused_exchange_is_not_tried_with_every_event() -> None:
    """Slack refuses the exchange: the next try is a minute later, however many events come."""
    async with many("one") as (_, slack, browser):
        slack.lifetime = 3600
        await browser.installs(RED)
        slack.refreshable.clear()
        for number in range(10):
            await slack.says("hi", channel=f"D{number}", team=RED)
        await slack.post(10)
        grants = [call.get("grant_type") for call in slack.called("oauth.v2.access")]
        assert grants.count("refresh_token") == 1


async def test_an_organisation_installs_it_for_all_its_workspaces() -> None:
    """One token of an organisation answers in each of its workspaces, whose talk is kept apart."""
    async with many("one", "two") as (t, slack, browser):
        slack.organisation = "EORG"
        await browser.installs(RED)
        for team in ("T1", "T2"):
            await slack.says("hi", channel=f"D{team}", team=replace(RED, id=team))
        await slack.post(2)
        assert slack.posters() == [RED.token] * 2
        assert {item.message.conversation.space for item in t.memory.everything()} == {"T1", "T2"}


async def test_only_the_browser_that_began_can_finish() -> None:
    """A link begun elsewhere, an invented state and one used twice are refused in a sentence; no code is spent."""
    async with many() as (_, slack, browser):
        link = f"{await browser.begins()}&member_of={RED.id}"
        other = Browser(slack)
        assert await other.opens(link) == (
            400,
            "This installation was started in another browser: start again at /slack/install.",
        )
        late = (401, "This installation took too long or was already finished: start again at /slack/install.")
        other.session.cookie_jar.update_cookies({"slack-app-oauth-state": "invented"}, URL(other.bot))
        assert await other.opens(f"{other.bot}/slack/oauth_redirect?code=code-1&state=invented") == late
        await other.session.close()
        assert slack.called("oauth.v2.access") == []

        assert (await browser.opens(link))[0] == 200
        state = slack.asked[-1]["state"]
        browser.session.cookie_jar.update_cookies({"slack-app-oauth-state": state}, URL(browser.bot))
        assert await browser.opens(f"{browser.bot}/slack/oauth_redirect?code=code-9&state={state}") == late


async def test_an_expired_state_is_refused() -> None:
    """Who takes too long begins again; what was never finished is forgotten when the next one begins."""
    async with many(state_seconds=-1) as (t, slack, browser):
        await browser.begins()
        state = re.search(r"state=([\w-]+)", await browser.begins())
        assert state is not None
        with t.memory.borrowed() as engine, engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM slack_oauth_states").scalar() == 1
        cookie = {"Cookie": f"slack-app-oauth-state={state[1]}"}
        url = f"{browser.bot}/slack/oauth_redirect?code=code-1&state={state[1]}"
        async with aiohttp.ClientSession() as session, session.get(url, headers=cookie) as page:
            assert page.status == 401
            assert "took too long" in await page.text()
        assert slack.called("oauth.v2.access") == []


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("error=access_denied", 200, "The installation was cancelled; nothing was installed."),
        ("error=<script>alert(1)</script>", 200, "Slack aborted the installation: start again at /slack/install."),
        ("", 400, "This installation was started in another browser: start again at /slack/install."),
    ],
)
async def test_what_else_ends_an_installation(query: str, status: int, sentence: str) -> None:
    """One sentence each; nothing of the address is repeated on the page."""
    async with many() as (_, __, browser):
        assert await browser.opens(f"{browser.bot}/slack/oauth_redirect?{query}") == (status, sentence)


async def test_a_wrong_client_secret_is_a_sentence() -> None:
    """Slack refuses the code, the member reads a sentence, nothing is stored."""
    async with many(secret="wrong") as (_, slack, browser):
        status, sentence = await browser.installs(RED)
        assert (status, sentence.split(":")[0]) == (401, "Slack did not accept the installation")
        assert slack.installed == {}


@pytest.mark.parametrize("told", [(REVOKED,), (UNINSTALLED,), (REVOKED, UNINSTALLED), (UNINSTALLED, REVOKED)])
async def test_a_workspace_that_removes_it_is_forgotten(told: tuple[dict[str, Any], ...]) -> None:
    """Either event, in either order, deletes that workspace's token and no other; it may install the bot again."""
    async with many() as (t, slack, browser):
        await browser.installs(RED)
        await browser.installs(BLUE)
        await slack.uninstalls(RED, *told)
        await slack.until_known(lambda: _tokens(t) == [BLUE.token])
        await slack.says("hi", channel="D1", team=RED)
        await t.quiet()
        await slack.says("hi", channel="D2", team=BLUE)
        await slack.post(1)
        await browser.installs(RED)
        await slack.says("hi again", channel="D1", team=RED)
        await slack.post(2)
        assert slack.posters() == [BLUE.token, RED.token]


async def test_a_members_revoked_token_is_not_the_bots() -> None:
    """Slack also tells of members' tokens, of which the bot has none."""
    async with many() as (t, slack, browser):
        await browser.installs(RED)
        await slack.event({"type": "tokens_revoked", "tokens": {"oauth": ["UANN"]}}, team=RED)
        await slack.says("hi", channel="D1", team=RED)
        await slack.post(1)
        assert _tokens(t) == [RED.token]


async def test_a_dead_token_of_one_workspace_does_not_stop_the_others() -> None:
    """Slack forgot to tell of a removal: that workspace gets no answer, the bot goes on."""
    async with many() as (t, slack, browser):
        await browser.installs(RED)
        await browser.installs(BLUE)
        await slack.uninstalls(RED)
        await slack.says("hi", channel="D1", team=RED)
        await t.quiet()
        await slack.says("hi", channel="D2", team=BLUE)
        await slack.post(1)
        assert not t.running.done()


async def test_installing_again_leaves_one_token() -> None:
    """A second installation takes the place of the first."""
    async with many() as (t, _, browser):
        await browser.installs(RED)
        await browser.installs(RED)
        assert _tokens(t) == [RED.token]


async def test_installations_outlive_the_bot(tmp_path: Path) -> None:
    """The tokens are in the bot's own database: a bot started anew answers at once. The installer's id is not kept."""
    url = f"sqlite:///{tmp_path / 'm.db'}"
    async with many(memory=open_memory(url)) as (_, first, browser):
        await browser.installs(RED)
    async with many(memory=open_memory(url)) as (_, second, __):
        second.installed = first.installed
        await second.says("hi", channel="D1", team=RED)
        assert (await second.post(1)).text == "hello"
    with sqlite3.connect(tmp_path / "m.db") as connection:
        assert not any("UANN" in str(row) for row in connection.execute("SELECT * FROM slack_bots"))


async def test_secrets_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Neither tokens nor the client secret nor a code, though the installing fails in between."""
    caplog.set_level(logging.DEBUG, logger="bots")
    async with many() as (t, slack, browser):
        await browser.installs(RED)
        await slack.uninstalls(RED)
        await slack.says("hi", channel="D1", team=RED)
        await t.quiet()
        slack.teams = {BLUE.id: BLUE}
        link = await browser.begins()
        state = re.search(r"state=([\w-]+)", link)
        assert state is not None
        await browser.opens(f"{browser.bot}/slack/oauth_redirect?code=invented-code&state={state[1]}")
    assert "oauth.v2.access" in caplog.text
    for secret in (RED.token, CLIENT_SECRET, "invented-code"):
        assert secret not in caplog.text
    assert CLIENT_SECRET not in repr(OAuth(client_id=CLIENT_ID, client_secret=CLIENT_SECRET))


async def test_a_broken_database_is_a_sentence() -> None:
    """No page of a traceback: the member is sent to the operator."""
    async with many() as (t, _, browser):
        with t.memory.borrowed() as engine, engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE slack_oauth_states")
        status, sentence = await browser.opens(f"{browser.bot}/slack/install")
        assert (status, sentence.split(":")[0]) == (503, "The installation could not be stored")


async def test_the_redirect_url_can_be_named() -> None:
    """For an app that has several."""
    async with many(redirect_url="https://bot.example/slack/oauth_redirect") as (_, __, browser):
        assert "redirect_uri=https://bot.example/slack/oauth_redirect" in await browser.begins()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"http": False}, "only over HTTP"),
        ({"signing_secret": ""}, "SLACK_SIGN"),
        ({"bot_token": "xoxb-1"}, "SLACK_BOT_TOKEN is set beside SLACK_CLIENT_ID"),
    ],
)
async def test_what_is_missing_is_said(options: dict[str, Any], sentence: str) -> None:
    """Over a socket nobody can install anything; HTTP needs its signing secret here too."""
    with pytest.raises(PermanentPlatformError, match=sentence):
        async with many(**options):
            pass


def _tokens(t: Talk) -> list[str]:
    with t.memory.borrowed() as engine, engine.connect() as connection:
        return [str(row[0]) for row in connection.exec_driver_sql("SELECT bot_token FROM slack_bots")]
