"""Discord: carries words in and out through discord.py; everything a member can do is `core.chat` and `core.commands`.

Inside this package `import discord` is the library: imports are absolute. Nothing outside it imports discord.py.

    bot.py           DiscordBot: the restart loop and what happens on each event
    connection.py    discord.py's client, made to outlast refused connects and malformed events
    incoming.py      discord.Message → Message (pure)
    posts.py         words → posts: escaped, in parts, patient with rate limits
    menus.py         the `/person2` group, context menus and buttons, built from the table of commands
    interactions.py  answers to those: at once, deferred, or as a normal message when it took too long
"""

from bots.discord.bot import DiscordBot
from bots.discord.connection import examine, point_at
from bots.discord.incoming import to_message
from bots.discord.patience import Patience

__all__ = ["DiscordBot", "Patience", "examine", "point_at", "to_message"]
