"""Slack by Socket Mode or signed HTTP. Carries words in and out; chat and commands decide.

The face of the only package that knows slack-bolt and slack_sdk. How it reads: `client` wires the rest; `socket_mode`
and `http_mode` listen, `dispatch` says whom a payload is for and when it is acknowledged, `events` and `commands`
answer it; `messages`, `markup` and `payloads` are pure; `sending` speaks through the `outbox`, which keeps Slack's
pace; `oauth` knows the workspaces that installed the bot.
"""

from bots.slack.client import SlackBot
from bots.slack.credentials import BOTH_WAYS, check_credentials
from bots.slack.manifest import manifest
from bots.slack.messages import to_message
from bots.slack.oauth import OAuth

__all__ = ["BOTH_WAYS", "OAuth", "SlackBot", "check_credentials", "manifest", "to_message"]
