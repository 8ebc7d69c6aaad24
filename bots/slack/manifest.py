"""The app manifest: what `person2 slack manifest` prints, to be pasted at https://api.slack.com/apps → Create New App →
From a manifest. Least scopes; `bots/slack_manifest.json` is the only place that lists them.

https://docs.slack.dev/reference/app-manifest
"""

import json
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

REDIRECT_PATH = "/slack/oauth_redirect"
"""Where Slack sends a browser back to when a workspace installs the bot."""

NEEDED = {"chat:write": "answer, and show that I am thinking"}
"""Scopes without which the bot is useless, and what they are for."""

WANTED = {
    "app_mentions:read": "notice mentions in channels I cannot read",
    "assistant:write": "offer suggested prompts",
    "channels:history": "read public channels and the threads I am in",
    "channels:read": "notice that a public channel was deleted",
    "commands": "offer /person2 and the shortcut",
    "files:write": "send a member their data as a file",
    "groups:history": "read private channels I was invited to",
    "groups:read": "notice that a private channel was deleted, or got another id",
    "im:history": "receive direct messages",
    "im:write": "send a member their data",
    "mpim:history": "receive group direct messages",
    "reactions:read": "take 👍 and 👎 as feedback",
    "users:read": "know members' names, and who is an administrator",
}
"""Scopes without which only what they are for is missing; those that the manifest marks as optional may be declined by
whoever installs the app (https://docs.slack.dev/changelog/2026/03/16/optional-scopes)."""


def manifest(http_url: str | None = None) -> str:
    """The manifest as JSON: for Socket Mode, or for HTTP with `http_url` as the public address of `SLACK_HTTP_PATH`.

    To switch an app from one to the other, paste the other manifest under “App Manifest” of the app. Raises ValueError
    with a sentence for an address that Slack would not accept.
    """
    content: dict[str, Any] = json.loads(files("bots").joinpath("slack_manifest.json").read_text(encoding="utf-8"))
    if http_url is not None:
        parts = urlsplit(http_url)
        if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(
                "Slack calls https:// addresses only: give the bot's public one, such as "
                "https://bot.example.org/slack/events."
            )
        settings = content["settings"]
        settings["socket_mode_enabled"] = False
        settings["event_subscriptions"] = {"request_url": http_url, **settings["event_subscriptions"]}
        settings["interactivity"]["request_url"] = http_url
        for command in content["features"]["slash_commands"]:
            command["url"] = http_url
        content["oauth_config"] = {
            "redirect_urls": [f"https://{parts.netloc}{REDIRECT_PATH}"],
            **content["oauth_config"],
        }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
