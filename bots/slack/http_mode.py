"""HTTP mode: a small server that takes Slack's signed requests. Knows slack-bolt's app; knows no event.

slack-bolt checks signature and age (five minutes) and answers 401
(https://docs.slack.dev/authentication/verifying-requests-from-slack).
"""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.app.async_app import AsyncApp

from core.errors import Refused

log = logging.getLogger(__name__)

HEALTH_PATH = "/health"

BODY_LIMIT = 4 * 1024 * 1024
"""Bytes of a request's body; Slack's are far smaller."""


class HttpMode:
    """Runs an app behind an HTTP server until cancelled."""

    def __init__(
        self,
        app: AsyncApp,
        *,
        host: str,
        port: int,
        path: str,
        listening: Callable[[], None] = lambda: None,
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._path = path if path.startswith("/") else f"/{path}"
        self._listening = listening

    async def run(self) -> None:
        """Raises Refused where the address cannot be had."""
        application = web.Application(client_max_size=BODY_LIMIT)
        application.router.add_post(self._path, self._receive)
        application.router.add_get(HEALTH_PATH, _health)
        flow = self._app.oauth_flow
        if flow is not None:
            application.router.add_get(flow.install_path, self._install)
            application.router.add_get(flow.redirect_uri_path, self._callback)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            try:
                await web.TCPSite(runner, self._host, self._port).start()
            except OSError as error:
                raise Refused(
                    f"Nobody can listen on {self._host}:{self._port} ({error.strerror or error}): "
                    "set SLACK_HTTP_HOST and SLACK_HTTP_PORT to a free address of this machine."
                ) from error
            log.info("listening for Slack on http://%s:%s%s", self._host, self._port, self._path)
            self._listening()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        if not request.headers.get("X-Slack-Request-Timestamp", "").isdecimal():
            return web.json_response({"error": "invalid request"}, status=401)
        try:
            bolt_request = await to_bolt_request(request)
        except ValueError:  # no UTF-8, no JSON: not from Slack
            return web.json_response({"error": "unreadable body"}, status=400)
        return await to_aiohttp_response(await self._app.async_dispatch(bolt_request))

    async def _install(self, request: web.Request) -> web.Response:
        assert self._app.oauth_flow is not None  # noqa: S101 - the route exists only with it
        return await to_aiohttp_response(await self._app.oauth_flow.handle_installation(await to_bolt_request(request)))

    async def _callback(self, request: web.Request) -> web.Response:
        assert self._app.oauth_flow is not None  # noqa: S101 - the route exists only with it
        return await to_aiohttp_response(await self._app.oauth_flow.handle_callback(await to_bolt_request(request)))


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"ok": True})
