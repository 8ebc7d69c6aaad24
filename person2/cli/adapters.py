"""Commands of the adapter registry: list, show, use, rollback, trial, merge, push."""

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
from person2.app import base_path, configured, now, open_registry, speech_test
from person2.console import out, write_json

cli = typer.Typer(no_args_is_help=True, help="Manage adapters: list, show, use, rollback, trial, merge, push.")


@cli.command("list", epilog="Example: `person2 adapters list`")
def list_adapters(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the adapters; the current one is marked."""
    settings = configured()
    registry = open_registry(settings)
    current = registry.current(base=settings.base_model)
    cards, trial = registry.cards(), registry.trials.read()
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
        out.print("There are no adapters yet: train one with `person2 train FILE`.")
        return
    table = Table("", "id", "base", "made", "held-out bits per byte", "state")
    for card in cards:
        scores = card.scores.get("new", {})
        bits = scores.get("reply_bits_per_byte", scores.get("bits_per_byte"))
        state = f"withdrawn: {card.withdrawn}" if card.withdrawn else "bundled" if registry.is_bundled(card.id) else ""
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
    standing = trial_standing(settings, registry)
    if standing:
        out.print(f"Trial: {standing}.", markup=False)


def trial_standing(settings: Settings, registry: AdapterRegistry) -> str:
    """How the adapter on trial stands, or how the last trial ended; empty where there was none."""
    if registry.trials.read() is None:
        return ""
    memory = open_memory(settings.database)
    try:
        return TrialJudge(registry, memory.judgements, clock=now).standing()
    finally:
        memory.close()


@cli.command("show", epilog="Example: `person2 adapters show our-voice`")
def show_adapter(adapter_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Print an adapter's card as JSON."""
    sys.stdout.write(open_registry(configured()).card(adapter_id).to_json())


@cli.command("use", epilog="Example: `person2 adapters use our-voice`")
def use_adapter(
    adapter_id: Annotated[str, typer.Argument(metavar="ID")],
    force: Annotated[
        bool, typer.Option("--force", help="Promote it even though it did not pass the gate; its card will say so.")
    ] = False,
) -> None:
    """Make an adapter current (`none` for the bare base); a running bot switches to it within seconds."""
    settings = configured()
    registry = open_registry(settings)
    if adapter_id != "none":
        _check_gate(registry, adapter_id, force=force, instead="promotes")
    registry.use(adapter_id, by_force=force, test=speech_test(settings))
    out.print(f"Current adapter: {adapter_id}.")


def _check_gate(registry: AdapterRegistry, adapter_id: str, *, force: bool, instead: str) -> None:
    """Raises AdapterError for an adapter that did not pass, unless forced; `instead` says what --force does with it."""
    if registry.card(adapter_id).passed is False and not force:
        raise AdapterError(
            f"{adapter_id} did not pass the gate; `person2 adapters show {adapter_id}` says why, "
            f"and --force {instead} it anyway."
        )


@cli.command("rollback", epilog="Example: `person2 adapters rollback`")
def roll_back() -> None:
    """Go back to the adapter before the current one."""
    found = open_registry(configured()).rollback()
    out.print(f"Current adapter: {found.id if found else 'none'}.")


@cli.command("trial", epilog="Example: `person2 adapters trial our-voice --share 0.3`")
def try_adapter(
    adapter_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="Share of the conversations that it answers in.")
    ] = 0.3,
    days: Annotated[int, typer.Option(min=1, help="Days after which an undecided trial ends.")] = 14,
    stop: Annotated[bool, typer.Option("--stop", help="End the trial; the current adapter stays active.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Try it even though it did not pass the gate.")] = False,
) -> None:
    """Let an adapter answer beside the current one until members' 👍, 👎 and `again` decide; without an ID, show the
    trial that is running."""
    settings = configured()
    registry = open_registry(settings)
    if stop:
        trial = registry.trials.read()
        if trial is None or not trial.running:
            raise AdapterError("No adapter is on trial: `person2 adapters trial ID` starts one.")
        registry.trials.end(trial, f"the trial of {trial.challenger} was stopped; {trial.champion} stays active")
        out.print(f"The trial of {trial.challenger} is over; current adapter: {trial.champion}.")
        return
    if adapter_id is None:
        standing = trial_standing(settings, registry)
        out.print(f"Trial: {standing}." if standing else "No adapter is on trial.", markup=False)
        return
    if settings.adapter != CURRENT:
        raise AdapterError(
            f"PERSON2_ADAPTER is {settings.adapter}, which is always used: a trial needs PERSON2_ADAPTER=current."
        )
    _check_gate(registry, adapter_id, force=force, instead="tries")
    trial = registry.begin_trial(
        adapter_id, share=share, days=days, base=settings.base_model, test=speech_test(settings)
    )
    out.print(
        f"{adapter_id} answers in {trial.share:.0%} of the conversations beside {trial.champion}; members' feedback"
        f" decides within {days} days."
    )


@cli.command("merge", epilog="Example: `person2 adapters merge our-voice --out our-model`")
def merge_adapter(
    adapter_id: Annotated[str, typer.Argument(metavar="ID")],
    target: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    base: Annotated[
        str | None, typer.Option(help="starter, smollm2, a hub name or a folder; the card's own when left out.")
    ] = None,
    gguf: Annotated[
        str | None, typer.Option(help="Also write a GGUF file for llama.cpp and Ollama: F16 or Q8_0.")
    ] = None,
) -> None:
    """Write base and adapter as one plain folder, which vLLM and transformers load, and as a GGUF file if asked to."""
    from training.publish.gguf_export import KINDS
    from training.publish.merge import merge

    kind = next((kind for kind in KINDS if kind == (gguf or "").upper()), None)
    if gguf and kind is None:
        raise AdapterError(f"--gguf must be {' or '.join(KINDS)}, not {gguf!r}.")

    registry = open_registry(configured())
    card = registry.card(adapter_id)
    if card.withdrawn:
        raise AdapterError(f"{adapter_id} is out of service ({card.withdrawn}), so it cannot be merged.")
    merge(base_path(base or card.base), Adapter(id=adapter_id, path=registry.path(adapter_id)), target, kind=kind)
    out.print(f"Wrote {target}, a plain model with {adapter_id} merged in.", markup=False)


@cli.command("push", epilog="Example: `person2 adapters push our-voice our-org/our-voice`")
def push_adapter(
    adapter_id: Annotated[str, typer.Argument(metavar="ID")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="A Hugging Face repo, org/name.")],
    public: Annotated[bool, typer.Option("--public", help="Make the repo public; it is private otherwise.")] = False,
) -> None:
    """Upload an adapter and its model card to a Hugging Face repo (HF_TOKEN, HF_ENDPOINT)."""
    from training.publish.push import push

    registry = open_registry(configured())
    where = push(registry.path(adapter_id), registry.card(adapter_id), repo, private=not public)
    out.print(str(where), markup=False)
