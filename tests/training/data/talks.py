"""Two interleaved conversations of a channel, written by hand, and who answers whom in them."""

from datetime import UTC, datetime, timedelta

from core.messages import Conversation, Message

START = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
ROOM = Conversation(platform="irc", channel="#help")

TWO_TALKS = """
0 ada    does anyone know how to mount an ntfs disk at boot?
0 grace  hi all, my sound card gives no sound since the upgrade
1 linus  ada: put a line for it into /etc/fstab
1 alan   grace: which sound card is it?
2 ada    linus: what do I write as the type, ntfs or ntfs-3g?
2 grace  alan: an intel hda one
3 linus  ada: ntfs-3g
3 alan   grace: run alsamixer and see whether the channel is muted
4 ada    linus: that worked, thanks!
4 grace  alan: it was muted indeed, thank you
5 linus  ada: you're welcome
"""
ANSWERS = [None, None, 0, 1, 2, 3, 4, 5, 6, 7, 8]


def channel(script: str) -> list[Message]:
    """`minute author text` a line."""
    messages: list[Message] = []
    for number, line in enumerate(script.strip().splitlines()):
        minute, author, text = line.split(maxsplit=2)
        messages.append(
            Message(
                conversation=ROOM,
                id=f"m{number}",
                author=author,
                author_name=author,
                text=text,
                sent_at=START + timedelta(minutes=int(minute)),
            )
        )
    return messages
