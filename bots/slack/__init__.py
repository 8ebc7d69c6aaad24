"""Slack, by Socket Mode or signed HTTP: messages in, replies out; `core.chat` and `core.commands` decide.

The only package that knows slack-bolt and slack_sdk. `client` wires the rest; `socket_mode` and `http_mode` receive
payloads, `dispatch` routes and acknowledges them, `events` and `commands` answer them; `messages`, `markup` and
`payloads` are pure; `sending` posts through the `outbox`, which keeps to Slack's rate limits; `oauth` knows the
workspaces that installed the bot.
"""

from bots.slack.client import SlackBot
from bots.slack.credentials import BOTH_WAYS, check_credentials
from bots.slack.manifest import manifest
from bots.slack.messages import to_message
from bots.slack.oauth import OAuth

__all__ = ["BOTH_WAYS", "OAuth", "SlackBot", "check_credentials", "manifest", "to_message"]
