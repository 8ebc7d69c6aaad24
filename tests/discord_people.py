"""People on the Discord of `tests.discord_server`: what they write, click and see."""

from dataclasses import dataclass
from time import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from simcord import interactions
from simcord.backend import serializers
from simcord.backend.command_access import command_access
from simcord.enums import ComponentType, InteractionType

if TYPE_CHECKING:
    from tests.discord_server import DiscordServer


@dataclass(frozen=True)
class Person:
    """A member at a keyboard."""

    server: "DiscordServer"
    id: int
    name: str

    @property
    def direct(self) -> int:
        return int(self.server.backend.get_dm_channel(self.id).id)

    @property
    def bot(self) -> str:
        return f"<@{self.server.backend.bot_user.id}>"

    def says(self, text: str, *, where: int | None = None, answering: int | None = None, **more: Any) -> Any:
        reference = None if answering is None else {"message_id": str(answering)}
        return self.server.backend.create_message(
            where or self.server.channel, self.id, text, reference=reference, **more
        )

    async def begins_typing(self, *, where: int | None = None) -> None:
        """The sign of typing, as the gateway hands it on."""
        channel = where or self.server.channel
        payload = {"channel_id": str(channel), "user_id": str(self.id), "timestamp": int(time())}
        await self.server.send("TYPING_START", payload | {"guild_id": str(self.server.guild.id)})

    def edits(self, message: Any, text: str) -> None:
        self.server.backend.edit_message(message.channel_id, message.id, {"content": text})

    def deletes(self, *messages: Any) -> None:
        if len(messages) == 1:
            self.server.backend.delete_message(messages[0].channel_id, messages[0].id)
        else:
            self.server.backend.bulk_delete_messages(messages[0].channel_id, [message.id for message in messages])

    def reacts(self, message: Any, emoji: str, *, stay: bool = True) -> None:
        self.server.backend.set_reaction(message.channel_id, message.id, emoji, self.id, stay)

    def opens_thread(self, name: str, *, parent: int | None = None, on: Any = None) -> int:
        """A thread of a channel or on a message of it; in a forum a post, whose words are said into it afterwards."""
        message = None if on is None else on.id
        thread = self.server.backend.create_thread(parent or self.server.channel, name, self.id, message_id=message)
        return int(thread.id)

    def may_use(self, command: str, *, kind: int = 1) -> bool:
        found = self.server.backend.find_command(command, self.server.guild.id, type=kind)
        assert found is not None, command
        return bool(command_access(self.server.backend, found, user_id=self.id, channel_id=self.server.channel).allowed)

    def posts_in(self, forum: int, name: str, text: str) -> Any:
        """A forum post of before the bot came: its first message has the id of its thread."""
        thread = self.opens_thread(name, parent=forum)
        said = self.says(text, where=thread, broadcast=False)
        stored = self.server.backend.messages[thread]
        del stored[said.id]
        said.id = thread
        stored[thread] = said
        return said

    async def uses(self, words: str, *, where: int | None = None, **options: Any) -> "Used":
        """A slash command: `uses("person2 ask", question="…")`."""
        path, channel = words.split(), where or self.server.channel
        root = await self._command(path[0], 1)
        leaf, nesting = interactions.walk_to_subcommand(root, path[1:])
        built, _ = interactions.build_options(self._actor(), words, leaf, options, channel_id=channel)
        data = {"id": root["id"], "name": root["name"], "type": 1}
        return self._interact(
            InteractionType.APPLICATION_COMMAND,
            channel,
            {**data, "options": interactions.nest_options(root, nesting, built)},
        )

    async def types(self, words: str, option: str, typed: str, **filled: Any) -> list[str]:
        """Autocomplete: what the bot offers for an option."""
        path = words.split()
        root = await self._command(path[0], 1)
        leaf, nesting = interactions.walk_to_subcommand(root, path[1:])
        built, _ = interactions.build_options(
            self._actor(), words, leaf, filled, partial=True, channel_id=self.server.channel
        )
        built.append({"name": option, "type": 3, "value": typed, "focused": True})
        data = {"id": root["id"], "name": root["name"], "type": 1}
        used = self._interact(
            InteractionType.APPLICATION_COMMAND_AUTOCOMPLETE,
            self.server.channel,
            {**data, "options": interactions.nest_options(root, nesting, built)},
        )
        await self.server.until(lambda: used.record.responded)
        return [choice["value"] for choice in used.record.autocomplete_choices or []]

    async def picks(self, menu: str, message: Any) -> "Used":
        """A context menu on a message."""
        root = await self._command(menu, 3)
        payload = dict(serializers.message_payload(self.server.backend, message))
        data = {"id": root["id"], "name": menu, "type": 3, "target_id": str(message.id)}
        return self._interact(
            InteractionType.APPLICATION_COMMAND,
            message.channel_id,
            {**data, "resolved": {"messages": {str(message.id): payload}}},
        )

    def clicks(self, message: Any, custom_id: str) -> "Used":
        payload = dict(serializers.message_payload(self.server.backend, message))
        data = {"custom_id": custom_id, "component_type": ComponentType.BUTTON}
        return self._interact(
            InteractionType.MESSAGE_COMPONENT, message.channel_id, data, message=payload, source=message.id
        )

    async def _command(self, name: str, kind: int) -> dict[str, Any]:
        found = await self.server.until(lambda: self.server.backend.find_command(name, self.server.guild.id, type=kind))
        return dict(found)

    def _actor(self) -> Any:
        return SimpleNamespace(id=self.id, _env=SimpleNamespace(backend=self.server.backend))

    def _interact(
        self, kind: int, channel: int, data: dict[str, Any], *, source: int | None = None, **more: Any
    ) -> "Used":
        backend = self.server.backend
        record, payload = interactions.base_payload(
            backend,
            type=kind,
            channel_id=channel,
            guild_id=backend.get_channel(channel).guild_id,
            user_id=self.id,
            data=data,
        )
        record.source_message_id = source
        payload.update(more)
        backend.emit("INTERACTION_CREATE", payload)
        return Used(self.server, record, payload)


@dataclass(frozen=True)
class Used:
    """An interaction as the member sees it."""

    server: "DiscordServer"
    record: Any
    payload: dict[str, Any]

    @property
    def answers(self) -> list[Any]:
        """Messages shown in answer, the first response and follow-ups; not while it still thinks or takes that back."""
        stored = self.server.backend.messages[self.record.channel_id]
        ids = [self.record.message_id, *self.record.followup_ids]
        found = [stored[id] for id in ids if id in stored and id != self.record.source_message_id]  # noqa: A001
        return [message for message in found if not message.flags & 1 << 7 and message.content != "…"]

    async def answer(self) -> str:
        """The first answer's text, marked when only the member sees it."""
        first = (await self.server.until(lambda: self.answers))[0]
        return f"(only you) {first.content}" if first.is_ephemeral else str(first.content)
