"""A small Slack on loopback: the Web API methods a bot uses, Socket Mode with acknowledgements and redelivery, signed
HTTP deliveries with retries, response URLs that wear out, and Slack's rate limits. Speaks Slack's documented protocol;
knows no bot.

People type with `says`, `commands`, `reacts`, …; what the bot posts stands in `posts`. Faults are ordered with `fail`,
limits with `limits`.
"""

import asyncio
import hashlib
import hmac
import itertools
import json
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import WSMsgType, web

BOT_TOKEN = "xoxb-1-loopback-secret"
APP_TOKEN = "xapp-1-loopback-secret"
SIGNING_SECRET = "loopback-signing-secret"
TEAM, BOT_USER, BOT_ID, APP = "T0001", "UBOT00001", "B0001", "A0001"
SCOPES = (
    "app_mentions:read,assistant:write,channels:history,channels:read,chat:write,commands,files:write,groups:history,"
    "groups:read,im:history,im:write,mpim:history,reactions:read,users:read"
)

WAIT = 30.0
"""Longest a test waits for something that should come at once, on a machine that has other things to do."""

Json = dict[str, Any]


@dataclass(kw_only=True)
class Post:
    """Something the bot made Slack show."""

    channel: str
    text: str
    ts: str = ""
    thread: str | None = None
    only_for: str | None = None
    """The member who alone sees it; None for everybody."""
    blocks: list[Json] = field(default_factory=list)
    metadata: Json = field(default_factory=dict)
    at: float = field(default_factory=time.monotonic)
    """When it was made, by the test's clock."""


@dataclass(frozen=True, kw_only=True)
class Team:
    """A workspace, and the bot in it."""

    id: str = TEAM
    bot_user: str = BOT_USER
    bot_id: str = BOT_ID
    token: str = BOT_TOKEN


HOME = Team()


@dataclass(kw_only=True)
class Fault:
    """What happens to a Web API call instead of its answer."""

    status: int = 200
    error: str = "internal_error"
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False
    """The call is carried out, and only its answer is lost."""
    breaks: bool = False
    """The line breaks instead of an answer."""


@dataclass(kw_only=True)
class Bucket:
    """A rate limit: so many calls at once, and then as many a second as `rate`."""

    rate: float
    burst: float
    level: float = 0.0
    at: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next call; 0 counts this one."""
        self.level = max(0.0, self.level - (now - self.at) * self.rate)
        self.at = now
        if self.level + 1 > self.burst:
            return (self.level + 1 - self.burst) / self.rate
        self.level += 1
        return 0.0


@dataclass(kw_only=True)
class Limits:
    """Slack's rate limits (https://docs.slack.dev/apis/web-api/rate-limits), which all allow for short bursts; `faster`
    divides every wait."""

    faster: float = 1.0
    tiers: dict[str, float] = field(
        default_factory=lambda: {
            "users.info": 100,
            "chat.update": 50,
            "chat.delete": 50,
            "chat.postEphemeral": 100,
            "conversations.history": 50,
            "conversations.replies": 50,
            "conversations.open": 50,
            "assistant.threads.setStatus": 600,
            "assistant.threads.setSuggestedPrompts": 100,
            "views.publish": 100,
        }
    )
    """Calls a minute by method: tiers 3 and 4, and one that is special."""
    workspace_per_minute: float = 600
    """Posts in all channels of a workspace together: "several hundred messages per minute"."""
    buckets: dict[str, Bucket] = field(default_factory=dict)

    def wait(self, method: str, arguments: Json, now: float) -> float:
        """Seconds that this call must wait; 0 where it may pass."""
        if method == "chat.postMessage":
            channel = self._bucket(f"in {arguments.get('channel')}", rate=1.0, burst=1.0)
            return channel.wait(now) or self._bucket("posts", self.workspace_per_minute / 60, burst=50).wait(now)
        per_minute = self.tiers.get(method)
        return self._bucket(method, per_minute / 60, burst=per_minute / 5).wait(now) if per_minute else 0.0

    def _bucket(self, name: str, rate: float, burst: float) -> Bucket:
        return self.buckets.setdefault(name, Bucket(rate=rate * self.faster, burst=burst))


class SlackServer:
    """Start with `async with`. `transport` says how the bot is reached; its HTTP address is given in `request_url`."""

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.request_url = ""
        self.posts: list[Post] = []
        self.said: list[Json] = []
        """What members said."""
        self.calls: list[tuple[str, Json]] = []
        """Every Web API call: method, arguments."""
        self.callers: list[str] = []
        """The token of each of these calls."""
        self.statuses: list[str] = []
        self.prompts: list[Json] = []
        """Suggested prompts."""
        self.views: list[Json] = []
        self.files: dict[str, bytes] = {}
        self.users = {"UANN": "Ann", "UBEN": "Ben", BOT_USER: "person2"}
        self.admins: set[str] = set()
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.refusing = ""
        """While it is set, every call is refused with this error and status 503."""
        self.limits: Limits | None = None
        self.limited: list[str] = []
        """Methods that were answered with 429."""
        self.outside: set[str] = set()
        """Channels that the bot is not in."""
        self.keeps_metadata = True
        self.pauses = (0.05, 0.05, 0.05)
        """Seconds before each further delivery of what was not acknowledged; Slack's own are about 0, 60 and 300."""
        self.hanging: set[str] = set()
        """Methods that never answer."""
        self.sockets: list[web.WebSocketResponse] = []
        self._transports: list[asyncio.Transport] = []
        """Of the sockets: what a rude server closes without a word."""
        self.connections = 0
        self.acks: dict[str, Json] = {}
        self.ack_seconds: list[float] = []
        self._silent: set[web.WebSocketResponse] = set()
        self.response_uses: dict[str, int] = {}
        self._response_channels: dict[str, str] = {}
        self.statuses_http: list[int] = []
        self._ids = itertools.count(1)
        self._ts = itertools.count(1)
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.identity: Json = {
            "url": "http://loopback",
            "team": "Loopback",
            "user": "person2",
            "team_id": TEAM,
            "user_id": BOT_USER,
            "bot_id": BOT_ID,
        }
        """What auth.test says."""
        self.hello: Json | None = {"type": "hello", "num_connections": 1, "connection_info": {"app_id": APP}}
        """How a socket greets; None for not at all."""
        self.socket_scheme = "ws"
        self.unknown: frozenset[str] = frozenset()
        """Methods that this server does not have: it answers with a page, not with JSON."""
        self.reduce: Callable[[Json], Json] = lambda body: body
        """What becomes of each payload on its way to the bot: servers leave out what they do not have."""
        self.tells_of_blocks = True
        """Whether posts are told of with their blocks, as Slack does."""
        self.tells_of_responses = True
        """Whether a post made through a response URL is told of by an event, as Slack does where it may."""
        self._telling: set[asyncio.Task[Json]] = set()
        self.public_url = ""
        """Where the server says it is, if not at `url`: a proxy knows the way."""

    async def __aenter__(self) -> "SlackServer":
        app = web.Application()
        app.router.add_route("*", "/api/{method}", self._api)
        app.router.add_get("/link", self._link)
        app.router.add_post("/commands/{id}", self._response)
        app.router.add_post("/upload/{id}", self._upload)
        self._more_routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    def _more_routes(self, app: web.Application) -> None:
        """What a larger Slack serves besides."""

    async def __aexit__(self, *raised: object) -> None:
        for telling in self._telling:
            telling.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
        for socket in self.sockets:
            if not socket.closed:
                await asyncio.wait_for(socket.close(), 1)
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/"

    def fail(self, method: str, *faults: Fault) -> None:
        """The next calls of a method meet these faults, one each."""
        self.faults[method] += faults

    def ts(self) -> str:
        return f"{1_700_000_000 + next(self._ts)}.000100"

    # What people do

    async def says(
        self,
        text: str,
        *,
        user: str = "UANN",
        channel: str = "C1",
        team: Team = HOME,
        told: bool = True,
        **more: Any,
    ) -> str:
        """A member types; gives the message's timestamp. A mention is sent twice, as Slack does. What is not `told` was
        said before the bot came, and stands in the history alone."""
        ts = more.pop("ts", None) or self.ts()
        self.said.append({"type": "message", "user": user, "text": text, "channel": channel, "ts": ts, **more})
        if not told:
            return str(ts)
        event = {"type": "message", "user": user, "text": text, "channel": channel, "ts": ts, "event_ts": ts, **more}
        if channel.startswith("D"):
            event["channel_type"] = "im"
        else:
            event["channel_type"] = "channel"
        await self.event(event, team=team)
        if f"<@{team.bot_user}" in text and not channel.startswith("D"):
            twin = {key: value for key, value in event.items() if key not in {"channel_type", "subtype"}}
            await self.event({**twin, "type": "app_mention"}, team=team)
        return str(ts)

    async def event(self, event: Json, *, event_id: str | None = None, retry: int = 0, team: Team = HOME) -> Json:
        body = {
            "token": "verification",
            "team_id": team.id,
            "api_app_id": APP,
            "event": event,
            "type": "event_callback",
            "event_id": event_id or f"Ev{next(self._ids):06}",
            "event_time": int(time.time()),
            "authorizations": [self.authorization(team)],
        }
        return await self.deliver("events_api", body, retry=retry)

    def authorization(self, team: Team) -> Json:
        """For whom an event is delivered."""
        return {"team_id": team.id, "user_id": team.bot_user, "is_bot": True, "is_enterprise_install": False}

    async def commands(
        self,
        text: str,
        *,
        user: str = "UANN",
        channel: str = "C1",
        trigger: str | None = None,
        url: str | None = None,
        team: Team = HOME,
    ) -> Json:
        """A member types `/person2 …`; gives what the bot acknowledged with."""
        body = {
            "token": "verification",
            "team_id": team.id,
            "team_domain": "loopback",
            "channel_id": channel,
            "channel_name": "directmessage" if channel.startswith("D") else "general",
            "user_id": user,
            "user_name": self.users.get(user, user).lower(),
            "command": "/person2",
            "text": text,
            "api_app_id": APP,
            "response_url": self.response_url(channel) if url is None else url,
            "trigger_id": trigger or f"{next(self._ids)}.{TEAM}.trigger",
        }
        return await self.deliver("slash_commands", body)

    async def interacts(self, kind: str, *, user: str = "UANN", **more: Any) -> Json:
        body = {
            "type": kind,
            "user": {
                "id": user,
                "username": self.users[user].lower(),
                "name": self.users[user].lower(),
                "team_id": TEAM,
            },
            "team": {"id": TEAM, "domain": "loopback"},
            "api_app_id": APP,
            "token": "verification",
            "trigger_id": f"{next(self._ids)}.{TEAM}.trigger",
            **more,
        }
        return await self.deliver("interactive", body)

    async def reacts(self, reaction: str, post: Post, *, user: str = "UANN", removed: bool = False) -> None:
        item = {"type": "message", "channel": post.channel, "ts": post.ts}
        kind = "reaction_removed" if removed else "reaction_added"
        await self.event(
            {
                "type": kind,
                "user": user,
                "reaction": reaction,
                "item": item,
                "item_user": BOT_USER,
                "event_ts": self.ts(),
            }
        )

    def response_url(self, channel: str = "C1") -> str:
        name = f"r{next(self._ids)}"
        self._response_channels[name] = channel
        self.response_uses[name] = 5
        return f"{self.url}/commands/{name}"

    # What the bot did

    async def until(self, reached: Callable[[], bool], seconds: float = WAIT) -> None:
        """Wait until something is true; fails the test loudly otherwise."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(reached), seconds)
            except TimeoutError:
                raise AssertionError(f"never came true; posts: {self.posts}; calls: {self.calls[-5:]}") from None

    async def post(self, number: int) -> Post:
        """The bot's post of that number, counted from 1, once it is there."""
        await self.until(lambda: len(self.posts) >= number)
        return self.posts[number - 1]

    async def until_known(self, reached: Callable[[], bool], seconds: float = WAIT) -> None:
        """Wait until something is true that the server does not see happen, such as a row in the bot's memory."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < deadline, "never came true"
            await asyncio.sleep(0.01)

    def called(self, method: str) -> list[Json]:
        return [arguments for name, arguments in self.calls if name == method]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # Deliveries

    async def deliver(self, kind: str, body: Json, *, retry: int = 0) -> Json:
        """Hand a payload to the bot as Slack does: again, marked as a retry, until it is acknowledged."""
        body = self.reduce(body)
        for attempt, pause in enumerate((*self.pauses, 0.0), retry):
            started = time.monotonic()
            answer = await (self._by_socket if self.transport == "socket" else self._by_http)(kind, body, attempt)
            if answer is not None:
                self.ack_seconds.append(time.monotonic() - started)
                return answer
            await asyncio.sleep(pause)
        raise AssertionError("the bot did not acknowledge")

    async def offers(self, event: Json, *, team: Team = HOME) -> Json | None:
        """Hand an event to the bot once; None where it is not acknowledged."""
        body = {
            "team_id": team.id,
            "api_app_id": APP,
            "event": event,
            "type": "event_callback",
            "event_id": f"Ev{next(self._ids):06}",
        }
        return await (self._by_socket if self.transport == "socket" else self._by_http)("events_api", body, 0)

    async def offers_anything(self, kind: str, body: Json) -> Json | None:
        """Hand any payload to the bot once; None where it is not acknowledged."""
        return await (self._by_socket if self.transport == "socket" else self._by_http)(kind, body, 0)

    async def _by_socket(self, kind: str, body: Json, attempt: int) -> Json | None:
        await self.until(lambda: any(not socket.closed for socket in self.sockets), WAIT)
        envelope_id = f"env-{next(self._ids)}"
        envelope = {
            "envelope_id": envelope_id,
            "type": kind,
            "payload": body,
            "accepts_response_payload": kind != "events_api",
        }
        if attempt:
            envelope |= {"retry_attempt": attempt, "retry_reason": "timeout"}
        socket = [socket for socket in self.sockets if not socket.closed][-1]
        try:
            await socket.send_json(envelope)
            await self.until(lambda: envelope_id in self.acks, 3)
        except (ConnectionError, AssertionError):
            return None
        return self.acks[envelope_id]

    async def _by_http(self, kind: str, body: Json, attempt: int) -> Json | None:
        if kind == "events_api":
            content, content_type = json.dumps(body), "application/json"
        elif kind == "slash_commands":
            content, content_type = urlencode(body, errors="replace"), "application/x-www-form-urlencoded"
        else:
            content, content_type = urlencode({"payload": json.dumps(body)}), "application/x-www-form-urlencoded"
        headers = {"Content-Type": content_type}
        if attempt:
            headers |= {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": "http_timeout"}
        try:
            status, text = await self.sends(content, headers=headers)
        except aiohttp.ClientError:
            return None
        if status != 200:
            return None
        return json.loads(text) if text.startswith("{") else {"text": text} if text else {}

    async def sends(
        self, content: str, *, headers: dict[str, str], secret: str = SIGNING_SECRET, age: float = 0
    ) -> tuple[int, str]:
        """One signed request, as it stands; gives status and body."""
        timestamp = str(int(time.time() - age))
        signature = hmac.new(secret.encode(), f"v0:{timestamp}:{content}".encode(), hashlib.sha256).hexdigest()
        signed = {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={signature}", **headers}
        timeout = aiohttp.ClientTimeout(total=WAIT)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(self.request_url, data=content.encode(), headers=signed) as response,
        ):
            self.statuses_http.append(response.status)
            return response.status, await response.text()

    # Socket Mode

    async def _link(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(autoping=False)
        await socket.prepare(request)
        self.sockets.append(socket)
        assert request.transport is not None
        self._transports.append(request.transport)
        self.connections += 1
        if self.hello is not None:
            await socket.send_json(self.hello)
        await self._notify()
        async for message in socket:
            if socket in self._silent:
                continue
            if message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                self.acks[said["envelope_id"]] = said.get("payload") or {}
                await self._notify()
        return socket

    async def disconnects(self, reason: str = "refresh_requested") -> None:
        """Slack asks for a new socket, and closes this one a little later."""
        socket = self.sockets[-1]
        await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {"host": "loopback"}})

    def falls_silent(self) -> None:
        """The line dies without a word: whatever is sent on it, pings included, is never answered."""
        self._silent.add(self.sockets[-1])

    def drops(self) -> None:
        """The line breaks: no CLOSE frame, just the end."""
        self._transports[-1].abort()

    # The Web API

    async def _api(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        if request.content_type == "application/json":
            arguments: Json = await request.json()
        else:
            form = await request.post()
            arguments = {key: value for key, value in (*request.query.items(), *form.items()) if isinstance(value, str)}
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or arguments.get("token", "")
        self.calls.append((method, arguments))
        self.callers.append(token)
        if method in self.hanging:
            await asyncio.sleep(3600)
        if self.refusing:
            await self._notify()
            return web.json_response({"ok": False, "error": self.refusing}, status=503)
        fault = self.faults[method].pop(0) if self.faults[method] else None
        if fault is not None and not fault.after:
            await self._notify()
            return await self._fails(request, fault)
        if method in self.unknown:
            return web.Response(status=404, text="<h1>Not Found</h1>", content_type="text/html")
        wrong = self._refuses(method, token) or self._not_in_channel(method, arguments)
        if wrong:
            await self._notify()
            return web.json_response({"ok": False, "error": wrong})
        wait = self.limits.wait(method, arguments, time.monotonic()) if self.limits is not None else 0.0
        if wait:
            self.limited.append(method)
            assert self.limits is not None
            seconds = max(math.ceil(wait * self.limits.faster), 1) / self.limits.faster  # Slack says whole seconds
            headers = {"Retry-After": f"{seconds:g}"}
            return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
        answer = getattr(self, f"_{method.replace('.', '_')}", self._unknown_method)(arguments)
        await self._notify()
        if fault is not None:
            return await self._fails(request, fault)
        return web.json_response({"ok": True, **answer}, headers={"X-OAuth-Scopes": SCOPES})

    async def _fails(self, request: web.Request, fault: Fault) -> web.Response:
        if fault.breaks:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"ok": False, "error": fault.error}, status=fault.status, headers=fault.headers)

    def _not_in_channel(self, method: str, arguments: Json) -> str:
        return (
            "not_in_channel"
            if method.startswith(("chat.", "conv")) and arguments.get("channel") in self.outside
            else ""
        )

    def _refuses(self, method: str, token: str) -> str:
        """Why a token may not call a method; empty where it may."""
        if token == (APP_TOKEN if method == "apps.connections.open" else BOT_TOKEN):
            return ""
        return "not_allowed_token_type" if token in {APP_TOKEN, BOT_TOKEN} else "invalid_auth"

    def _unknown_method(self, arguments: Json) -> Json:
        return {"ok": False, "error": "unknown_method"}

    def _auth_test(self, arguments: Json) -> Json:
        return self.identity

    def _apps_connections_open(self, arguments: Json) -> Json:
        base = (self.public_url or self.url).replace("http", self.socket_scheme, 1)
        return {"url": f"{base}/link?ticket=secret-ticket&app_id={APP}"}

    def _users_info(self, arguments: Json) -> Json:
        user = arguments["user"]
        if user not in self.users:
            return {"ok": False, "error": "user_not_found"}
        profile = {"display_name": self.users[user], "real_name": f"{self.users[user]} Real"}
        return {"user": {"id": user, "name": user.lower(), "profile": profile, "is_admin": user in self.admins}}

    def _chat_postMessage(self, arguments: Json) -> Json:  # noqa: N802 - Slack's name
        post = Post(
            channel=arguments["channel"],
            text=arguments["text"],
            ts=self.ts(),
            thread=arguments.get("thread_ts"),
            blocks=_json(arguments.get("blocks")) or [],
            metadata=_json(arguments.get("metadata")) or {} if self.keeps_metadata else {},
        )
        self.posts.append(post)
        return {"channel": post.channel, "ts": post.ts, "message": {"text": post.text, "ts": post.ts, "bot_id": BOT_ID}}

    def _chat_postEphemeral(self, arguments: Json) -> Json:  # noqa: N802 - Slack's name
        post = Post(
            channel=arguments["channel"],
            text=arguments["text"],
            thread=arguments.get("thread_ts"),
            only_for=arguments["user"],
        )
        self.posts.append(post)
        return {"message_ts": self.ts()}

    def _chat_update(self, arguments: Json) -> Json:
        for post in self.posts:
            if post.ts == arguments["ts"] and post.channel == arguments["channel"]:
                post.text = arguments["text"]
                if "blocks" in arguments:
                    blocks = arguments["blocks"]
                    post.blocks = json.loads(blocks) if isinstance(blocks, str) else blocks
                return {"channel": post.channel, "ts": post.ts, "text": post.text}
        return {"ok": False, "error": "message_not_found"}

    def _chat_delete(self, arguments: Json) -> Json:
        self.posts = [post for post in self.posts if post.ts != arguments["ts"]]
        return {"channel": arguments["channel"], "ts": arguments["ts"]}

    def _views_publish(self, arguments: Json) -> Json:
        view = arguments["view"]
        self.views.append(json.loads(view) if isinstance(view, str) else view)
        return {"view": {"id": "V1"}}

    def _assistant_threads_setStatus(self, arguments: Json) -> Json:  # noqa: N802 - Slack's name
        self.statuses.append(arguments["status"])
        return {}

    def _assistant_threads_setSuggestedPrompts(self, arguments: Json) -> Json:  # noqa: N802 - Slack's name
        self.prompts += arguments["prompts"]
        return {}

    def _conversations_open(self, arguments: Json) -> Json:
        return {"channel": {"id": f"D{arguments['users']}"}}

    def _files_getUploadURLExternal(self, arguments: Json) -> Json:  # noqa: N802 - Slack's name
        name = arguments["filename"]
        return {"upload_url": f"{self.url}/upload/{name}", "file_id": f"F{name}"}

    def _files_completeUploadExternal(self, arguments: Json) -> Json:  # noqa: N802 - Slack's name
        files = arguments["files"]
        listed = json.loads(files) if isinstance(files, str) else files
        self.posts.append(
            Post(channel=arguments["channel_id"], text=arguments.get("initial_comment", ""), ts=self.ts())
        )
        return {"files": listed}

    async def _upload(self, request: web.Request) -> web.Response:
        self.files[request.match_info["id"]] = await request.read()
        return web.Response(text="OK")

    async def _response(self, request: web.Request) -> web.Response:
        name, body = request.match_info["id"], await request.json()
        if self.response_uses.get(name, 0) < 1:
            return web.Response(status=404, text="used_url" if name in self.response_uses else "expired_url")
        self.response_uses[name] -= 1
        visible = body.get("response_type") == "in_channel"
        post = Post(
            channel=self._response_channels[name],
            text=body["text"],
            ts=self.ts() if visible else "",
            only_for=None if visible else "asker",
            blocks=body.get("blocks") or [],
        )
        self.posts.append(post)
        await self._notify()
        if visible and self.tells_of_responses:
            telling = asyncio.create_task(self.tells_of(post))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)
        return web.Response(text="ok")

    async def tells_of(self, post: Post) -> Json:
        """The event of a post of the bot's."""
        return await self.event({"type": "message", "channel": post.channel, **self._shown(post)})

    def _shown(self, post: Post) -> Json:
        """A post as Slack tells of it: links marked up, emoji by name."""
        text = re.sub(r"https?://\S+", r"<\g<0>>", post.text).replace("🙂", ":slightly_smiling_face:")
        shown: Json = {"subtype": "bot_message", "bot_id": BOT_ID, "text": text, "ts": post.ts}
        return {**shown, "blocks": post.blocks} if self.tells_of_blocks else shown

    def _conversations_history(self, arguments: Json) -> Json:
        return {"messages": self._told(arguments)[::-1]}

    def _conversations_replies(self, arguments: Json) -> Json:
        where = arguments["channel"], arguments["ts"]
        first = [{**said, "thread_ts": said["ts"]} for said in self.said if (said["channel"], said["ts"]) == where]
        return {"messages": [*first, *self._told(arguments, thread=arguments["ts"])]}

    def _told(self, arguments: Json, thread: str | None = None) -> list[Json]:
        return [
            {"type": "message", **self._shown(post), **({"metadata": post.metadata} if post.metadata else {})}
            for post in self.posts
            if post.channel == arguments["channel"] and post.ts > arguments.get("oldest", "") and post.thread == thread
        ]


def _json(value: Any) -> Any:
    """An argument that a form carries as text."""
    return json.loads(value) if isinstance(value, str) else value
