"""Slack's error codes → what to do: stop with a sentence, or try again. Pure; never shows a token."""

import re

import aiohttp
from slack_sdk.errors import SlackApiError, SlackClientError, SlackRequestError

from core.errors import PermanentPlatformError, PlatformError

NETWORK = (aiohttp.ClientError, TimeoutError, OSError)
"""Errors of a failed or lost connection."""

_SENTENCES = {
    "invalid_auth": "Slack does not know this {token}: copy it again from https://api.slack.com/apps into {variable}.",
    "not_authed": "Slack received no {token}: set {variable}.",
    "account_inactive": "The {token} belongs to a removed app or workspace: install the app again and set {variable}.",
    "token_revoked": "The {token} was revoked: install the app again and set {variable}.",
    "token_expired": "The {token} has expired: make a new one and set {variable}.",
    "not_allowed_token_type": "The {token} is of the wrong kind: {variable} needs one that starts with {prefix}.",
    "missing_scope": "The {token} lacks the scope {needed}: add it to the app and install the app again.",
    "no_permission": "The {token} may not do that: add the scopes of `person2 slack manifest`, install again.",
    "socket_mode_not_enabled": "Socket Mode is switched off for this app: switch it on, or run `person2 slack --http`.",
    "app_not_installed": "The app is not installed in the workspace: install it and set {variable}.",
}
_PERMANENT = frozenset(_SENTENCES) | {
    "access_denied",
    "ekm_access_denied",
    "enterprise_is_restricted",
    "forbidden_team",
    "invalid_token",
    "org_login_required",
    "team_access_not_granted",
    "two_factor_setup_required",
    "user_removed_from_team",
}
"""Codes for which trying again cannot help (https://docs.slack.dev/reference/methods/auth.test, “Errors”)."""

REVOKED = frozenset({"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired"})
"""Codes after which no method works any more."""

_SECRETS = re.compile(
    r"\bx(?:ox[a-z]|app)-[\w.-]+|(?<=ticket=)[^&\s'\"]+|(?<=/commands/)[\w/-]+|(?<=result with code: )\S+",
    re.IGNORECASE,
)


def code(error: BaseException) -> str:
    """Slack's error code, such as `missing_scope`; empty where there is none."""
    response = getattr(error, "response", None)
    data = getattr(response, "data", response)
    return str(data.get("error") or "") if isinstance(data, dict) else ""


def reason(error: BaseException) -> str:
    """What went wrong in a word or two, for the log: Slack's code, the HTTP status, or the network error."""
    if isinstance(error, SlackClientError):
        return code(error) or (f"HTTP {status(error)}" if status(error) else type(error).__name__)
    return redact(f"{type(error).__name__}: {error}".rstrip(": "))


def status(error: BaseException) -> int:
    """The HTTP status of a refused request; 0 where there is none."""
    response = getattr(error, "response", None)
    return int(getattr(response, "status_code", 0) or getattr(response, "status", 0) or 0)


def explain(error: BaseException, *, variable: str) -> PlatformError:
    """One sentence for an error of the Web API: PermanentPlatformError where trying again cannot help."""
    name = code(error)
    app = variable == "SLACK_APP_TOKEN"
    if name in _PERMANENT:
        data = error.response.data if isinstance(error, SlackApiError) and hasattr(error.response, "data") else {}
        needed = str((data or {}).get("needed") or ("connections:write" if app else "that it needs"))
        sentence = _SENTENCES.get(name, f"Slack refuses the {{token}} ({name}): ask an administrator of the workspace.")
        return PermanentPlatformError(
            sentence.format(
                token="app-level token" if app else "bot token",
                variable=variable,
                prefix="xapp-" if app else "xoxb-",
                needed=needed,
            )
        )
    if status(error) in {404, 405} or isinstance(error, SlackRequestError):
        return PermanentPlatformError(
            "No Slack Web API answers there: check SLACK_API_URL, which ends in /api/ (Slack's own if unset)."
        )
    return PlatformError(f"Slack failed ({name or f'HTTP {status(error)}'}): trying again.")


def redact(text: str) -> str:
    """`text` with tokens, socket tickets, response URLs and OAuth codes masked."""
    return _SECRETS.sub("***", text)
