"""A Discord-compatible server on loopback: REST and gateway over real sockets, Discord's rules from `simcord`.

simcord's in-memory backend keeps guilds, messages, permissions and interactions and answers each REST route; here it
gets an HTTP and a WebSocket face, so that an unmodified client can talk to it. Faults are ordered by tests.
"""

import asyncio
import contextlib
import copy
import fnmatch
import io
import itertools
import json
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import discord
from aiohttp import WSCloseCode, WSMsgType, web
from simcord import intents as simcord_intents
from simcord.backend import Backend, serializers
from simcord.backend.cdn import CDN_BASE
from simcord.backend.errors import BackendError
from simcord.enums import ChannelType
from simcord.http import router, routes  # noqa: F401 - importing the routes registers them

from tests.discord_limits import VIA, Limits
from tests.discord_people import Person as Person  # with the server, for who tests against it

TOKEN = "the.right.token"
WAIT = 30.0
"""Longest a test waits for something that should come at once, on a machine that has other things to do."""


@dataclass(kw_only=True)
class Fault:
    """Answers the next `times` matching calls in place of Discord."""

    method: str
    path: str
    status: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1
    lost: bool = False
    """The call is done all the same; only its answer is this one."""

    def hits(self, method: str, path: str) -> bool:
        return fnmatch.fnmatch(method, self.method) and fnmatch.fnmatch(path, self.path)


@dataclass
class Session:
    """One identified gateway session; its events are kept for a RESUME."""

    id: str
    intents: discord.Intents
    socket: "Socket | None" = None
    events: list[dict[str, Any]] = field(default_factory=list)
    presence: dict[str, Any] = field(default_factory=dict)


class Socket:
    """One gateway connection, compressed as the client asked for."""

    def __init__(self, ws: web.WebSocketResponse, request: web.Request, *, compress: bool) -> None:
        self.ws = ws
        self._request = request
        self._deflate = zlib.compressobj() if compress else None

    async def send(self, payload: dict[str, Any]) -> None:
        await self.send_text(json.dumps(payload))

    async def send_text(self, text: str) -> None:
        with contextlib.suppress(ConnectionError):
            if self._deflate is None:
                await self.ws.send_str(text)
            else:
                packed = self._deflate.compress(text.encode()) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
                await self.ws.send_bytes(packed)

    def abort(self) -> None:
        if self._request.transport is not None:
            self._request.transport.abort()


class DiscordServer:
    """Start with `serving()`. Members act through `Person`s; what the bot did is read from the backend."""

    def __init__(self) -> None:
        self.backend = Backend()
        self.backend.bot_user.name = "Person2"
        self.guild = self.backend.create_guild("Gardeners")
        self.channel = self.backend.create_channel(self.guild.id, "general").id
        self.port = 0
        self.faults: list[Fault] = []
        self.calls: list[tuple[str, str, Any]] = []
        self.sessions: dict[str, Session] = {}
        self.approved = discord.Intents.all()
        self.identifies = 0
        self.resumes = 0
        self.beats = 0
        self.resume_url: str | None = None
        self.limits: Limits | None = None
        """Discord's rate limits, where a test wants them."""
        self.gateway_attempts = 0
        self.refuse_gateway = 0
        """So many next gateway connections are refused."""
        self.hang_gateway = False
        """Whether a gateway connection that is made gets no answer."""
        self.shards = 1
        self.refuse_intents = False
        self.gateway_token = TOKEN
        self.said_gateway: str | None = None
        self.ready_without: tuple[str, ...] = ()
        """Optional fields to leave out of READY."""
        self.ready_null = False
        """Whether those are there, and null."""
        self.hello: dict[str, Any] = {"heartbeat_interval": 41250}
        self.charset: str | None = None
        """What JSON is said to be encoded in, as many servers do and Discord does not."""
        self.reduce: Callable[[Any], Any] = lambda payload: payload
        """What becomes of each payload and answer: servers leave out what they do not have."""
        self._hook = self.backend.make_user("Hook")
        self._serial = itertools.count(1)
        self._nonces: dict[str, Any] = {}
        self._hung = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self.backend.subscribers.append(self._emitted)

    # Addresses

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v10"

    @property
    def gateway(self) -> str:
        return f"ws://127.0.0.1:{self.port}/gateway"

    async def start(self) -> None:
        app = web.Application(client_max_size=32 << 20)
        app.router.add_get("/gateway", self._gateway)
        app.router.add_get("/attachments/{path:.*}", self._attachment)
        app.router.add_route("*", "/api/v10/{path:.*}", self._rest)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self._hung.set()
        for session in self.sessions.values():
            await self.drop(session)
        if self._runner is not None:
            await self._runner.cleanup()

    # REST

    async def _rest(self, request: web.Request) -> web.Response:
        path, method = "/" + request.match_info["path"], request.method
        if self.limits is None:
            return await self._answer(request, method, path)
        refused = self.limits.refusal(method, path)
        if refused is None:
            response = await self._answer(request, method, path)
            response.headers.update(self.limits.headers(method, path))
        else:
            status, said, headers = refused
            response = _json(said, status, headers) if said else web.Response(status=status, headers=headers)
        self.limits.answered(response.status)
        return response

    async def _answer(self, request: web.Request, method: str, path: str) -> web.Response:
        body, files = await _body(request)
        self.calls.append((method, path, body))
        fault = next((each for each in self.faults if each.hits(method, path)), None)
        if fault is not None:
            fault.times -= 1
            if fault.times <= 0:
                self.faults.remove(fault)
            if fault.lost:
                self._done(method, path, body, request.query, files)
            return _json(fault.body, fault.status, fault.headers)
        with_token = path.startswith(("/webhooks/", "/interactions/"))
        if not with_token and request.headers.get("Authorization") != f"Bot {TOKEN}":
            return _json({"message": "401: Unauthorized", "code": 0}, 401)
        if path == "/gateway":
            return _json({"url": self.said_gateway or self.gateway})
        if path == "/gateway/bot":
            limit = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
            return _json(
                {"url": self.said_gateway or self.gateway, "shards": self.shards, "session_start_limit": limit}
            )
        try:
            answer = self._done(method, path, body, request.query, files)
        except BackendError as error:
            return _json(error.to_json(), error.status)
        if path == "/oauth2/applications/@me":
            answer["flags"] = 1 << 19 if self.approved.message_content else 0
        silent = path.endswith("/callback") and request.query.get("with_response") not in {"1", "true"}
        if answer is None or silent:
            return web.Response(status=204)
        return _json(self.reduce(answer), charset=self.charset)

    def _done(self, method: str, path: str, body: Any, query: Mapping[str, str], files: list[Any]) -> Any:
        """What the backend says; of a post under a nonce that was used already, what it said then."""
        nonce = body.get("nonce") if isinstance(body, dict) and body.get("enforce_nonce") else None
        if nonce is not None and nonce in self._nonces:
            return self._nonces[nonce]
        answer = router.dispatch(self.backend, method, path, json=body, params=dict(query), files=files)
        if nonce is not None:
            self._nonces[nonce] = answer
        return answer

    async def _attachment(self, request: web.Request) -> web.Response:
        data = self.backend.cdn.get(f"{CDN_BASE}{request.path}")
        return web.Response(status=404) if data is None else web.Response(body=data)

    # Gateway

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        self.gateway_attempts += 1
        if self.refuse_gateway > 0:
            self.refuse_gateway -= 1
            return web.Response(status=503)
        if self.hang_gateway:
            await self._hung.wait()
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        socket = Socket(ws, request, compress=request.query.get("compress") == "zlib-stream")
        await socket.send({"op": 10, "d": self.hello, "s": None, "t": None})
        session: Session | None = None
        async for frame in ws:
            if frame.type is not WSMsgType.TEXT:
                continue
            message = json.loads(frame.data)
            match message["op"]:
                case 1:
                    self.beats += 1
                    await socket.send({"op": 11, "d": None, "s": None, "t": None})
                case 2:
                    session = await self._identify(socket, message["d"])
                case 6:
                    session = await self._resume(socket, message["d"])
        if session is not None and session.socket is socket:
            session.socket = None
        return ws

    async def _identify(self, socket: Socket, data: dict[str, Any]) -> Session | None:
        self.identifies += 1
        if data["token"] != self.gateway_token:
            await socket.ws.close(code=4004, message=b"Authentication failed.")
            return None
        wanted = discord.Intents.none()
        wanted.value = data["intents"]
        if self.refuse_intents or simcord_intents.missing_privileged_intents(wanted, self.approved):
            await socket.ws.close(code=4014, message=b"Disallowed intent(s).")
            return None
        session = Session(f"session{next(self._serial)}", wanted, socket, presence=data.get("presence") or {})
        self.sessions[session.id] = session
        ready = {
            "v": 10,
            "user": serializers.user_payload(self.backend.bot_user),
            "guilds": [{"id": str(guild), "unavailable": True} for guild in self.backend.guilds],
            "session_id": session.id,
            "shard": data.get("shard", [0, 1]),
            "resume_gateway_url": self.resume_url or self.gateway,
            "application": {"id": str(self.backend.application_id), "flags": 0},
        }
        for name in self.ready_without:
            if self.ready_null:
                ready[name] = None
            else:
                del ready[name]
        await self._dispatch(session, "READY", ready)
        for guild in self.backend.guilds.values():
            shown = dict(serializers.guild_create_payload(self.backend, guild))
            simcord_intents.prune_guild_create(shown, session.intents, self.backend.bot_user.id)
            await self._dispatch(session, "GUILD_CREATE", shown)
        return session

    async def _resume(self, socket: Socket, data: dict[str, Any]) -> Session | None:
        self.resumes += 1
        session = self.sessions.get(data["session_id"])
        if session is None:
            await socket.send({"op": 9, "d": False, "s": None, "t": None})
            return None
        missed = [event for event in session.events if event["s"] > data["seq"]]
        for event in missed:
            await socket.send(event)
        session.socket = socket
        await self._dispatch(session, "RESUMED", {})
        return session

    def _emitted(self, event: str, payload: Any) -> None:
        for session in self.sessions.values():
            shaped = copy.deepcopy(dict(payload))
            gate = simcord_intents.required_intent(event, shaped)
            if gate is not None and not getattr(session.intents, gate):
                continue
            if not session.intents.message_content and event in {"MESSAGE_CREATE", "MESSAGE_UPDATE"}:
                simcord_intents.censor_message(shaped, self.backend.bot_user.id, backend=self.backend)
            if event == "GUILD_CREATE":
                simcord_intents.prune_guild_create(shaped, session.intents, self.backend.bot_user.id)
            self._later(self._dispatch(session, event, shaped))

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _dispatch(self, session: Session, event: str, payload: dict[str, Any]) -> None:
        frame = {"op": 0, "t": event, "s": len(session.events) + 1, "d": self.reduce(payload)}
        session.events.append(frame)
        if session.socket is not None:
            await session.socket.send(frame)

    # What tests order

    @property
    def session(self) -> Session:
        return list(self.sessions.values())[-1]

    async def send(self, event: str, payload: Any) -> None:
        """Any event, well-formed or not."""
        await self._dispatch(self.session, event, payload)

    def fail(
        self,
        method: str,
        path: str,
        status: int,
        *,
        code: int = 0,
        times: int = 1,
        headers: dict[str, str] | None = None,
        everywhere: bool = False,
        lost: bool = False,
    ) -> None:
        """Let the next calls fail; a 429 names its wait in `Retry-After`, and may hold `everywhere`. A call that is
        `lost` is done, and only its answer is not."""
        body: dict[str, Any] = {"code": code, "message": "ordered by the test"}
        headers = headers or {}
        if status == 429:
            body["retry_after"] = float(headers.get("Retry-After", 0.1))
        if everywhere:
            body["global"] = True
            headers = VIA | {"X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"} | headers
        self.faults.append(
            Fault(method=method, path=path, status=status, body=body, times=times, headers=headers, lost=lost)
        )

    def interaction_like(self, payload: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """A new interaction with another one's payload."""
        old = self.backend.interactions[int(payload["id"])]
        record = self.backend.new_interaction(old.type, old.channel_id, old.user_id, old.guild_id)
        return record, copy.deepcopy(payload) | {"id": str(record.id), "token": record.token}

    async def drop(self, session: Session) -> None:
        """Cut the connection without a word; the session can be resumed."""
        socket, session.socket = session.socket, None
        if socket is not None:
            socket.abort()

    async def send_frame(self, text: str) -> None:
        """Any text in place of a frame."""
        if self.session.socket is not None:
            await self.session.socket.send_text(text)

    async def close(self, code: int = WSCloseCode.OK) -> None:
        socket, self.session.socket = self.session.socket, None
        if socket is not None:
            await socket.ws.close(code=code)

    def payload(self, message: Any) -> dict[str, Any]:
        """A message as the gateway shows it."""
        return copy.deepcopy(dict(serializers.message_payload(self.backend, message)))

    def picture(self) -> dict[str, Any]:
        return dict(self.backend.cdn.store_attachment(self.backend.snowflake(), self.channel, "rose.png", b"png", None))

    def file(self, name: str, data: bytes) -> dict[str, Any]:
        """An attachment that can be read from this server."""
        stored = dict(self.backend.cdn.store_attachment(self.backend.snowflake(), self.channel, name, data, None))
        return stored | {"url": stored["url"].replace(CDN_BASE, f"http://127.0.0.1:{self.port}")}

    def webhook_says(self, name: str, text: str) -> Any:
        """A post by a webhook under a name of its own."""
        return self.backend.create_message(
            self.channel, self._hook.id, text, webhook_id=self._hook.id, author_name=name
        )

    def person(self, name: str, *, bot: bool = False, **member: Any) -> "Person":
        user = self.backend.make_user(name.lower(), global_name=name, bot=bot)
        self.backend.add_member(self.guild.id, user.id, **member)
        return Person(self, user.id, name)

    def admin(self, name: str) -> "Person":
        role = self.backend.create_role(
            self.guild.id, "keepers", permissions=discord.Permissions(manage_channels=True).value
        )
        return self.person(name, roles=[role.id])

    def posts(self, channel: int | None = None) -> list[str]:
        """What the bot wrote in a channel for all to see, oldest first."""
        return [message.content for message in self.messages(channel) if not message.is_ephemeral]

    def messages(self, channel: int | None = None) -> list[Any]:
        """The bot's messages, ephemeral ones included; still “thinking …” ones are not."""
        stored = self.backend.messages[channel or self.channel].values()
        ours = [message for message in stored if message.author_id == self.backend.bot_user.id]
        return [message for message in ours if not message.flags & 1 << 7 and message.type in {0, 19, 20, 23}]

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for something to become true; its value."""
        deadline = asyncio.get_running_loop().time() + WAIT
        while asyncio.get_running_loop().time() < deadline:
            found = condition()
            if found:
                return found
            await asyncio.sleep(0.005)
        raise AssertionError(
            f"not within {WAIT} s; the bot wrote {self.posts()}, the last calls were {[c[:2] for c in self.calls[-5:]]}"
        )

    async def posted(self, count: int, channel: int | None = None) -> list[str]:
        """Wait until the bot has written so much in a channel."""
        await self.until(lambda: len(self.posts(channel)) >= count)
        return self.posts(channel)


async def _body(request: web.Request) -> tuple[Any, list[Any]]:
    if request.content_type == "application/json":
        text = await request.text()
        return (json.loads(text) if text else None), []
    if not request.content_type.startswith("multipart/"):
        return None, []
    body, files = None, []
    reader = await request.multipart()
    async for part in reader:
        if part.name == "payload_json":  # type: ignore[union-attr]  # no nested multiparts here
            body = json.loads(await part.text())  # type: ignore[union-attr]
        else:
            data = bytes(await part.read())  # type: ignore[union-attr]
            files.append(SimpleNamespace(fp=io.BytesIO(data), filename=part.filename, description=None))  # type: ignore[union-attr]
    return body, files


def _json(
    body: Any, status: int = 200, headers: dict[str, str] | None = None, charset: str | None = None
) -> web.Response:
    content = json.dumps(body).encode()
    return web.Response(body=content, status=status, content_type="application/json", charset=charset, headers=headers)


@asynccontextmanager
async def relaying(server: DiscordServer) -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP proxy to that server: its URL, and the first line of each chunk that came by."""
    lines: list[str] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                lines.append(chunk.split(b"\r\n")[0].decode(errors="replace"))
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(carry(reader, back), carry(there, writer))

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", lines
    finally:
        proxy.close()


@asynccontextmanager
async def serving() -> AsyncIterator[DiscordServer]:
    server = DiscordServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def forum(server: DiscordServer, name: str = "questions") -> int:
    return int(server.backend.create_channel(server.guild.id, name, type=ChannelType.FORUM).id)
