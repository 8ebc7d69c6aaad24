"""Discord, through discord.py: messages in, replies out; what members can do is in `core.chat` and `core.commands`.

Inside this package `import discord` is the library: imports are absolute. Nothing outside it imports discord.py.

    client.py        DiscordBot: logs in, and again whenever the connection ends; `check_credentials` for doctor
    events.py        what happens on each event
    messages.py      discord.Message → Message (pure)
    reposts.py       messages that proxy bots such as PluralKit delete and post again
    commands.py      the `/person2` group, context menus and buttons, built from the table of commands
    interactions.py  answers to those: at once, deferred, or as a normal message when they took too long
    sending.py       texts → posts, in spite of rate limits and outages
    markup.py        replies → texts: escaped, in parts that fit (pure)
    pacing.py        the queue below Discord's global rate limit
    compat.py        what depends on discord.py's internals for REST, and on servers that are only compatible
    gateway.py       the gateway: one session through outages, no event that ends it
    payloads.py      JSON of both, completed as discord.py needs it (pure)
    timeouts.py      how long to wait for what
"""

from bots.discord.client import DiscordBot, check_credentials
from bots.discord.compat import point_at
from bots.discord.messages import to_message
from bots.discord.timeouts import DiscordTimeouts

__all__ = ["DiscordBot", "DiscordTimeouts", "check_credentials", "point_at", "to_message"]
