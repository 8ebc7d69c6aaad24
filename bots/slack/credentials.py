"""Check the bot's tokens with Slack, for `doctor`; receives nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from slack_sdk.errors import SlackClientError
from slack_sdk.web.async_slack_response import AsyncSlackResponse

from bots.slack.compat import REQUEST_SECONDS, base_url, web_client
from bots.slack.errors import NETWORK, explain, redact
from bots.slack.manifest import NEEDED, WANTED
from core.errors import PlatformError

BOTH_WAYS = (
    "SLACK_BOT_TOKEN is set beside SLACK_CLIENT_ID and SLACK_CLIENT_SECRET: keep the token to serve one workspace, "
    "or the other two to let workspaces install the bot."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlackCredentials:
    name: str
    workspace: str
    missing: Mapping[str, str]
    """Scopes that the bot token lacks, and what each is for; empty where Slack does not send the scopes."""


def granted_scopes(answer: AsyncSlackResponse) -> set[str]:
    """The scopes of the token that a call was made with, which Slack sends in a header; empty where it does not
    (https://docs.slack.dev/authentication/installing-with-oauth)."""
    headers = {name.lower(): value for name, value in (answer.headers or {}).items()}
    scopes = str(headers.get("x-oauth-scopes") or "").split(",")
    return {scope.strip() for scope in scopes if scope.strip()}


async def check_credentials(
    bot_token: str, *, app_token: str | None = None, api_url: str | None = None, proxy: str | None = None
) -> SlackCredentials:
    """Check the bot token and its scopes, and that a socket can be opened with the app token.

    Raises PlatformError, PermanentPlatformError where trying again cannot help.
    """
    url = base_url(api_url)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS)) as session:
        variable = "SLACK_BOT_TOKEN"
        try:
            answer = await web_client(token=bot_token, url=url, proxy=proxy, session=session).auth_test()
            if app_token:
                variable = "SLACK_APP_TOKEN"
                client = web_client(token=app_token, url=url, proxy=proxy, session=session)
                await client.apps_connections_open(app_token=app_token)
        except SlackClientError as error:
            raise explain(error, variable=variable) from error
        except NETWORK as error:
            cause = redact(f"{type(error).__name__}: {error}")
            raise PlatformError(f"Slack cannot be reached ({cause}); check the network and SLACK_API_URL.") from error
    scopes = granted_scopes(answer)
    wanted = {**NEEDED, **WANTED}
    return SlackCredentials(
        name=str(answer.get("user") or "Person2"),
        workspace=str(answer.get("team") or ""),
        missing={scope: why for scope, why in wanted.items() if scopes and scope not in scopes},
    )
