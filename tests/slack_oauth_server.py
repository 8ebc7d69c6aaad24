"""A small Slack with several workspaces that install apps over OAuth: a page where a member allows the app, codes that
are good once, `oauth.v2.access`, and removal. Speaks Slack's documented protocol; knows no bot.

https://docs.slack.dev/authentication/installing-with-oauth
"""

import asyncio
import itertools
from base64 import b64decode
from dataclasses import replace
from urllib.parse import urlencode

from aiohttp import web

from tests.slack_server import APP, SCOPES, Json, SlackServer, Team

CLIENT_ID = "111.222"
CLIENT_SECRET = "loopback-client-secret"

RED = Team(id="TRED", bot_user="UBOTRED", bot_id="BRED", token="xoxb-red-loopback-secret")
BLUE = Team(id="TBLUE", bot_user="UBOTBLUE", bot_id="BBLUE", token="xoxb-blue-loopback-secret")


class SlackOfMany(SlackServer):
    """Reached over HTTP. A browser chooses the workspace by `member_of`, as a real one does by being logged in."""

    def __init__(self, *teams: Team) -> None:
        super().__init__("http")
        self.teams = {team.id: team for team in teams}
        self.installed: dict[str, Team] = {}
        """By token."""
        self.asked: list[Json] = []
        """What the app asked for when a member came to allow it."""
        self.lifetime: int | None = None
        """Seconds that a token lives, where the app rotates its tokens."""
        self.refreshable: dict[str, Team] = {}
        """By refresh token; each is good once."""
        self.organisation = ""
        """Where it is set, who allows the app does so for this whole organisation."""
        self.slow: set[str] = set()
        """Refresh tokens whose exchange waits for `exchanges`."""
        self.exchanges = asyncio.Event()
        self._codes: dict[str, Team] = {}
        self._numbers = itertools.count(1)

    def _more_routes(self, app: web.Application) -> None:
        app.router.add_get("/oauth/v2/authorize", self._authorize)
        app.router.add_post("/api/oauth.v2.access", self._access)

    async def _authorize(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.asked.append(query)
        back = {"state": query["state"]}
        if query.get("member_of"):
            code = f"code-{next(self._numbers)}"
            self._codes[code] = self.teams[query["member_of"]]
            back["code"] = code
        else:
            back["error"] = "access_denied"
        first = self.request_url.replace("/slack/events", "/slack/oauth_redirect")
        raise web.HTTPFound(f"{query.get('redirect_uri') or first}?{urlencode(back)}")

    async def _access(self, request: web.Request) -> web.Response:
        form = await request.post()
        known = b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        self.calls.append(("oauth.v2.access", {key: str(value) for key, value in form.items()}))
        self.callers.append("")
        if known != f"{CLIENT_ID}:{CLIENT_SECRET}":
            return web.json_response({"ok": False, "error": "bad_client_secret"})
        if form.get("grant_type") == "refresh_token":
            if str(form.get("refresh_token")) in self.slow:
                await self.exchanges.wait()
            team = self.refreshable.pop(str(form.get("refresh_token")), None)
            if team is None:
                return web.json_response({"ok": False, "error": "invalid_refresh_token"})
            team = replace(team, token=f"{team.token}-next")  # the old token serves until it expires, as Slack's does
            lifetime: int | None = 43_200
        else:
            team = self._codes.pop(str(form.get("code")), None)
            if team is None:
                return web.json_response({"ok": False, "error": "invalid_code"})
            lifetime = self.lifetime
        self.installed[team.token] = team
        rotation: Json = {}
        if lifetime is not None:
            rotation = {"refresh_token": f"xoxe-1-{team.token}", "expires_in": lifetime}
            self.refreshable[rotation["refresh_token"]] = team
        return web.json_response(
            {
                "ok": True,
                "access_token": team.token,
                "token_type": "bot",
                "scope": SCOPES,
                "bot_user_id": team.bot_user,
                "app_id": APP,
                "team": None if self.organisation else {"id": team.id, "name": f"<{team.id}>"},
                "enterprise": {"id": self.organisation, "name": "Org"} if self.organisation else None,
                "authed_user": {"id": "UANN"},
                "is_enterprise_install": bool(self.organisation),
                **rotation,
            }
        )

    async def uninstalls(self, team: Team, *events: Json) -> None:
        """A workspace removes the app: its token is dead, and the bot is told."""
        self.installed.pop(team.token, None)
        for event in events:
            await self.event(event, team=team)

    def authorization(self, team: Team) -> Json:
        if not self.organisation:
            return super().authorization(team)
        known = {"enterprise_id": self.organisation, "team_id": None, "is_enterprise_install": True}
        return {**super().authorization(team), **known}

    def _refuses(self, method: str, token: str) -> str:
        return "" if token in self.installed else "account_inactive"

    def _auth_test(self, arguments: Json) -> Json:
        team = self.installed[self.callers[-1]]
        return {
            "url": self.url,
            "team": team.id,
            "user": "person2",
            "team_id": team.id,
            "user_id": team.bot_user,
            "bot_id": team.bot_id,
        }

    def posters(self) -> list[str]:
        """The tokens that posted, in order."""
        pairs = zip(self.calls, self.callers, strict=True)
        return [token for (method, _), token in pairs if method == "chat.postMessage"]
