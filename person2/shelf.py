"""Commands of the shelf of adapters: list, show, use, rollback."""

import json
import sys
from typing import Annotated

import typer
from rich.table import Table

from core.settings import load_settings
from person2.screen import out, write_json
from person2.wiring import open_shelf

app = typer.Typer(no_args_is_help=True, help="The shelf of adapters: list, show, use, rollback, merge, push.")


@app.command("list", epilog="Example: `person2 adapters list`")
def list_adapters(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """The adapters on the shelf; the current one is marked."""
    settings = load_settings()
    shelf = open_shelf(settings)
    current = shelf.current(base=settings.base_model)
    cards = shelf.cards()
    if as_json:
        rows = [{**json.loads(card.to_json()), "current": bool(current and current.id == card.id)} for card in cards]
        write_json(rows)
        return
    if not cards:
        out.print("The shelf is empty: `person2 train FILE` makes an adapter.")
        return
    table = Table("", "id", "base", "made", "held-out bits per byte", "state")
    for card in cards:
        scores = card.scores.get("new", {})
        bits = scores.get("reply_bits_per_byte", scores.get("bits_per_byte"))
        state = f"withdrawn: {card.withdrawn}" if card.withdrawn else "ships" if shelf.is_bundled(card.id) else ""
        table.add_row(
            "→" if current and current.id == card.id else "",
            card.id,
            card.base,
            f"{card.created_at:%Y-%m-%d %H:%M}",
            f"{bits:.3f}" if isinstance(bits, float) else "–",
            state,
        )
    out.print(table)


@app.command("show", epilog="Example: `person2 adapters show our-voice`")
def show_adapter(adapter_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """An adapter's card, as JSON."""
    sys.stdout.write(open_shelf(load_settings()).card(adapter_id).to_json())


@app.command("use", epilog="Example: `person2 adapters use our-voice`")
def use_adapter(adapter_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Make an adapter the current voice (`none` for the bare base); a running bot takes it over within seconds."""
    open_shelf(load_settings()).use(adapter_id)
    out.print(f"Current voice: {adapter_id}.")


@app.command("rollback", epilog="Example: `person2 adapters rollback`")
def roll_back() -> None:
    """Go back to the voice before the current one."""
    found = open_shelf(load_settings()).rollback()
    out.print(f"Current voice: {found.id if found else 'none'}.")
