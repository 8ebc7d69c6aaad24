"""Commands about a person's data: export it, or remove it everywhere."""

from dataclasses import asdict
from typing import Annotated

import typer

from core.errors import StorageError
from core.memory import Memory, open_memory
from person2.app import configured, open_registry, stored_of_member
from person2.console import out, write_json

cli = typer.Typer()


@cli.command(epilog="Example: `person2 export discord:80351110224678912 > their-data.json`")
def export(member: Annotated[str, typer.Argument(help="PLATFORM:ID, such as discord:8035…", metavar="MEMBER")]) -> None:
    """Print everything stored about a member, as JSON."""
    from training.privacy.member_export import is_empty

    settings = configured()
    memory, registry = open_memory(settings.database), open_registry(settings)
    found = [stored_of_member(settings, memory, registry, platform, who) for platform, who in _members(memory, member)]
    stored = [each for each in found if not is_empty(each)]
    if not stored:
        raise _unknown(member)
    write_json(stored)


@cli.command(epilog="Example: `person2 forget slack:U012AB3CD`")
def forget(
    member: Annotated[str, typer.Argument(help="PLATFORM:ID, such as slack:U012…", metavar="MEMBER")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the receipt as JSON.")] = False,
) -> None:
    """Delete everything about a member; adapters trained on their words are taken out of service."""
    from training.privacy.forget import forget as forget_everywhere

    settings = configured()
    memory, registry = open_memory(settings.database), open_registry(settings)
    known = _members(memory, member)
    if not known:
        raise _unknown(member)
    left: list[str] = []
    for platform, who in known:
        receipt = forget_everywhere(
            platform, who, memory=memory, registry=registry, home=settings.home, base=settings.base_model
        )
        left += receipt.left
        if as_json:
            write_json({"member": f"{platform}:{who}", **asdict(receipt)})
            continue
        removed = receipt.removed
        out.print(
            f"{platform}:{who}: {removed.messages} messages, {removed.replies} answers to them, "
            f"{removed.feedback} votes and {receipt.dialogues} training dialogues deleted."
        )
        if receipt.adapters:
            out.print(
                f"Out of service: {', '.join(receipt.adapters)}. Current adapter: {receipt.speaks_now}. "
                "Delete what you merged or pushed from them yourself. To rebuild:"
            )
        for command in receipt.rebuild:
            out.print(f"  {command}", markup=False)
    if left:
        raise StorageError(f"Not everything could be deleted: {' '.join(left)} Then run forget again.")


def _members(memory: Memory, member: str) -> list[tuple[str, str]]:
    """A bare id or name on every platform that knows it; `platform:id` as it is, since someone may be in imported files
    only."""
    platform, colon, who = member.partition(":")
    return memory.find_members(member) or ([(platform, who)] if colon else [])


def _unknown(member: str) -> StorageError:
    return StorageError(
        f"Nothing is stored about {member!r}: name a member as PLATFORM:ID, such as discord:80351110224678912."
    )
