"""Slack: slack-bolt, by Socket Mode or signed HTTP. Carries words in and out; chat and commands decide.

The face of the only package that knows slack-bolt and slack_sdk. How it reads: `bot` wires the rest, `events` and
`markup` are pure, `posting` speaks, `socket_mode` and `http_mode` listen,
`installations` knows the workspaces that installed the bot over OAuth.
"""

from bots.slack.bot import SlackBot
from bots.slack.checkup import examine
from bots.slack.events import to_message
from bots.slack.installations import OAuth
from bots.slack.manifest import manifest

__all__ = ["OAuth", "SlackBot", "examine", "manifest", "to_message"]
