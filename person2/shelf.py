"""Commands of the shelf of adapters: list, show, use, rollback, trial, merge, push."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from core.adapters import CURRENT, AdapterRegistry
from core.adapters.judge import TrialJudge
from core.errors import AdapterError
from core.generator import Adapter
from core.memory import open_memory
from core.settings import Settings
from person2.screen import out, write_json
from person2.wiring import base_path, configured, now, open_shelf, speech_test

app = typer.Typer(no_args_is_help=True, help="The shelf of adapters: list, show, use, rollback, trial, merge, push.")


@app.command("list", epilog="Example: `person2 adapters list`")
def list_adapters(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """The adapters on the shelf; the current one is marked."""
    settings = configured()
    shelf = open_shelf(settings)
    current = shelf.current(base=settings.base_model)
    cards, trial = shelf.cards(), shelf.trials.read()
    if as_json:
        on_trial = trial.challenger if trial is not None and trial.running else None
        rows = [
            {
                **json.loads(card.to_json()),
                "current": bool(current and current.id == card.id),
                "on_trial": card.id == on_trial,
            }
            for card in cards
        ]
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
        if trial is not None and trial.running and trial.challenger == card.id:
            state = f"on trial: {trial.share:.0%}"
        table.add_row(
            "→" if current and current.id == card.id else "",
            card.id,
            card.base,
            f"{card.created_at:%Y-%m-%d %H:%M}",
            f"{bits:.3f}" if isinstance(bits, float) else "–",
            state,
        )
    out.print(table)
    standing = trial_standing(settings, shelf)
    if standing:
        out.print(f"Trial: {standing}.", markup=False)


def trial_standing(settings: Settings, shelf: AdapterRegistry) -> str:
    """How the adapter on trial stands, or how the last trial ended; empty where there was none."""
    if shelf.trials.read() is None:
        return ""
    memory = open_memory(settings.database)
    try:
        return TrialJudge(shelf, memory.judgements, clock=now).standing()
    finally:
        memory.close()


@app.command("show", epilog="Example: `person2 adapters show our-voice`")
def show_adapter(adapter_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """An adapter's card, as JSON."""
    sys.stdout.write(open_shelf(configured()).card(adapter_id).to_json())


@app.command("use", epilog="Example: `person2 adapters use our-voice`")
def use_adapter(
    adapter_id: Annotated[str, typer.Argument(metavar="ID")],
    force: Annotated[
        bool, typer.Option("--force", help="Although it did not pass the gate; its card will say so.")
    ] = False,
) -> None:
    """Make an adapter the current voice (`none` for the bare base); a running bot takes it over within seconds."""
    settings = configured()
    shelf = open_shelf(settings)
    if adapter_id != "none" and shelf.card(adapter_id).passed is False and not force:
        raise AdapterError(
            f"{adapter_id} did not pass the gate; `person2 adapters show {adapter_id}` says why, "
            "and --force promotes it all the same."
        )
    shelf.use(adapter_id, by_force=force, test=speech_test(settings))
    out.print(f"Current voice: {adapter_id}.")


@app.command("rollback", epilog="Example: `person2 adapters rollback`")
def roll_back() -> None:
    """Go back to the voice before the current one."""
    found = open_shelf(configured()).rollback()
    out.print(f"Current voice: {found.id if found else 'none'}.")


@app.command("trial", epilog="Example: `person2 adapters trial our-voice --share 0.3`")
def try_adapter(
    adapter_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Of the conversations, how many it answers in.")
    ] = 0.3,
    days: Annotated[int, typer.Option(min=1, help="Without a decision by then it retires.")] = 14,
    stop: Annotated[bool, typer.Option("--stop", help="End the trial; the current voice stays.")] = False,
) -> None:
    """Let an adapter answer beside the current voice until 👍, 👎 and `again` decide; without an ID, show how that
    stands."""
    settings = configured()
    shelf = open_shelf(settings)
    if stop:
        trial = shelf.trials.read()
        if trial is None or not trial.running:
            raise AdapterError("No adapter is on trial: `person2 adapters trial ID` begins one.")
        shelf.trials.end(trial, f"the trial of {trial.challenger} was stopped; {trial.champion} stays active")
        out.print(f"The trial of {trial.challenger} is over; current voice: {trial.champion}.")
        return
    if adapter_id is None:
        standing = trial_standing(settings, shelf)
        out.print(f"Trial: {standing}." if standing else "No adapter is on trial.", markup=False)
        return
    if settings.adapter != CURRENT:
        raise AdapterError(
            f"PERSON2_ADAPTER is {settings.adapter}, which speaks everywhere: a trial needs PERSON2_ADAPTER=current."
        )
    if shelf.card(adapter_id).passed is False:
        raise AdapterError(
            f"{adapter_id} did not pass the gate; `person2 adapters show {adapter_id}` says why. It is not tried on"
            " members."
        )
    trial = shelf.begin_trial(adapter_id, share=share, days=days, base=settings.base_model, test=speech_test(settings))
    out.print(
        f"{adapter_id} answers in {trial.share:.0%} of the conversations beside {trial.champion}; members' judgement"
        f" decides within {days} days."
    )


@app.command("merge", epilog="Example: `person2 adapters merge our-voice --out our-model`")
def merge_adapter(
    adapter_id: Annotated[str, typer.Argument(metavar="ID")],
    target: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    base: Annotated[
        str | None, typer.Option(help="starter, smollm2, a hub name or a folder; the card's own when left out.")
    ] = None,
    gguf: Annotated[str | None, typer.Option(help="Also as a GGUF file for llama.cpp and Ollama: F16 or Q8_0.")] = None,
) -> None:
    """Write base and adapter as one plain folder, which vLLM and transformers load, and as a GGUF file if asked to."""
    from training.publish.gguf_export import KINDS
    from training.publish.merge import merge

    kind = next((kind for kind in KINDS if kind == (gguf or "").upper()), None)
    if gguf and kind is None:
        raise AdapterError(f"--gguf is {' or '.join(KINDS)}, not {gguf!r}.")

    shelf = open_shelf(configured())
    card = shelf.card(adapter_id)
    if card.withdrawn:
        raise AdapterError(f"{adapter_id} is out of service ({card.withdrawn}) and is not given away.")
    merge(base_path(base or card.base), Adapter(id=adapter_id, path=shelf.path(adapter_id)), target, kind=kind)
    out.print(f"{target} is a plain model with the voice {adapter_id} in it.", markup=False)


@app.command("push", epilog="Example: `person2 adapters push our-voice our-org/our-voice`")
def push_adapter(
    adapter_id: Annotated[str, typer.Argument(metavar="ID")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A Hugging Face repo, org/name.")],
    public: Annotated[bool, typer.Option("--public", help="Anybody may read it; private otherwise.")] = False,
) -> None:
    """Upload an adapter and its model card to a Hugging Face repo (HF_TOKEN, HF_ENDPOINT)."""
    from training.publish.push import push

    shelf = open_shelf(configured())
    where = push(shelf.path(adapter_id), shelf.card(adapter_id), repo, private=not public)
    out.print(str(where), markup=False)
