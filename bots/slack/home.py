"""The App Home tab: short help, the consent buttons, how much feedback the bot got."""

import asyncio
from typing import Any

from bots.slack import markup
from bots.slack.messages import PLATFORM
from bots.slack.workspace import Workspace
from core.chat import Chat
from core.commands import Commands

CONSENT_YES = "consent_yes"
CONSENT_NO = "consent_no"
"""Action ids of the consent buttons."""

_STATES = {
    None: "You have not said whether I may learn from what you write, so I don't.",
    True: "You said yes: I may learn from what you write.",
    False: "You said no: I don't learn from what you write.",
}


async def show(workspace: Workspace, chat: Chat, commands: Commands, user: str) -> None:
    """Show a member their tab as it is now."""
    consent = await asyncio.to_thread(chat.memory.consent, PLATFORM, user)
    liked, disliked = await asyncio.to_thread(chat.memory.feedback_counts, PLATFORM, workspace.team)
    shown = view(help_text=commands.help_text(), consent=consent, liked=liked, disliked=disliked)
    client = await workspace.api()
    await client.views_publish(user_id=user, view=shown)


def view(*, help_text: str, consent: bool | None, liked: int, disliked: int) -> dict[str, Any]:
    """A view for `views.publish`. Pure."""
    return {
        "type": "home",
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": "Person2"}},
            _section(markup.escape(help_text)),
            {"type": "divider"},
            _section(f"*Learning.* {_STATES[consent]}"),
            {
                "type": "actions",
                "elements": [
                    _button("You may learn from me", CONSENT_YES, chosen=consent is True, style="primary"),
                    _button("Don't learn from me", CONSENT_NO, chosen=consent is False, style="danger"),
                ],
            },
            {
                "type": "context",
                "elements": [
                    {"type": "mrkdwn", "text": f"Feedback in this workspace: {liked} 👍 and {disliked} 👎. Thank you!"}
                ],
            },
        ],
    }


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _button(words: str, action: str, *, chosen: bool, style: str) -> dict[str, Any]:
    button: dict[str, Any] = {
        "type": "button",
        "action_id": action,
        "value": action.removeprefix("consent_"),
        "text": {"type": "plain_text", "text": f"✓ {words}" if chosen else words},
    }
    return {**button, "style": style} if chosen else button
