"""An adapter and its model card → a Hugging Face repo, through the hub's own client (so `HF_ENDPOINT`, `HF_TOKEN`
apply).

Nothing that is uploaded identifies the operator's machine or a member: folders, the training command and people's keyed
hashes are left out. Knows the registry's card; not the registry.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined] # whichever httpx the hub uses

from core.adapters import CARD, Card
from core.adapters.validation import CONFIG, WEIGHTS, check, peft_config, shape_of
from core.errors import AdapterError
from core.generator.bases import SMOLLM2, SMOLLM2_HUB

HUB = "https://huggingface.co"


def push(
    folder: Path,
    card: Card,
    repo: str,
    *,
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload an adapter's files, its card and a README.md to `repo` (`owner/name`), in one commit; returns its URL.

    The repo is created where there is none, private by default. `token` and `endpoint` are the hub client's own
    (HF_TOKEN or `hf auth login`, HF_ENDPOINT) when left out. Raises AdapterError, also for a withdrawn adapter.
    """
    check(folder)
    if card.withdrawn:
        raise AdapterError(f"the adapter {card.id!r} is out of service ({card.withdrawn}), so it cannot be pushed")
    address = (endpoint or constants.ENDPOINT).rstrip("/")
    public = public_card(card)
    api = HfApi(endpoint=address, token=token, library_name="person2")
    try:
        with ExitStack() as stack:
            weights = folder / WEIGHTS
            # Only the hub supports Xet, its newest storage; a stream is uploaded by LFS, which every mirror supports.
            content: Path | BinaryIO = weights if address == HUB else stack.enter_context(weights.open("rb"))
            stack.enter_context(_quiet_hub_client())
            name = api.create_repo(repo, private=private, exist_ok=True).repo_id
            operations = [
                CommitOperationAdd("README.md", readme(public, repo=name).encode()),
                CommitOperationAdd(CONFIG, _public_config(folder, public).encode()),
                CommitOperationAdd(CARD, public.to_json().encode()),
                CommitOperationAdd(WEIGHTS, content),
            ]
            api.create_commit(name, operations, commit_message=f"Upload the LoRA adapter {card.id}")
    except HFValidationError as error:
        raise AdapterError(f"{repo!r} is not a Hugging Face repo name: write it as owner/name") from error
    except HfHubHTTPError as error:
        raise AdapterError(_refusal(error, address, repo)) from error
    except (OSError, ClientError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AdapterError(
            f"{address} could not be reached or refused the adapter ({reason}): check the network and HF_ENDPOINT"
        ) from error
    return f"{address}/{name}"


def public_card(card: Card) -> Card:
    """The card without people, and without paths and commands of the operator's machine."""
    config = {key: value for key, value in card.config.items() if key != "command" and not _is_local(value)}
    return replace(card, base=_public_base(card.base), people=(), config=config, notes="", extra={})


def readme(card: Card, *, repo: str) -> str:
    """A model card (huggingface.co/docs/hub/model-cards): metadata for the hub, then text for people."""
    named = SMOLLM2_HUB if card.base == SMOLLM2 else card.base
    hub_base = named if "/" in named or named.startswith(("gpt2", "distilgpt2")) else ""
    family = card.base_fingerprint.split(" ", 1)[0]
    lines = [
        "---",
        "library_name: peft",
        "pipeline_tag: text-generation",
        *([f"base_model: {hub_base}"] if hub_base else []),
        "tags:",
        *(f"- {tag}" for tag in ("lora", family, "conversational", "person2") if tag),
        "---",
        "",
        f"# {card.id}",
        "",
        f"A LoRA adapter for {card.base}, made with Person2 on {card.created_at:%Y-%m-%d}: it continues dialogues of"
        " `Person1:` and `Person2:` lines as Person2.",
        "",
        "```",
        f"person2 chat --base {card.base} --adapter {repo}",
        "```",
        "",
        "## Facts",
        "",
        f"- Base: {card.base}" + (f" ({shape_of(card.base_fingerprint)})" if card.base_fingerprint else ""),
        *([f"- SHA-256 of the training dialogues: `{card.data_sha256}`"] if card.data_sha256 else []),
        *(f"- {name}: {value}" for name, value in sorted(card.config.items())),
        *(["- Promoted by force: it did not pass the gate"] if card.promoted_by_force else []),
        *_scores(card),
        "",
        "## Limits",
        "",
        "It writes like the people it learned from, errors and opinions included, and may repeat their words."
        " It states things that are not true. Publishing it requires the consent of those people.",
        "",
    ]
    return "\n".join(lines)


def _scores(card: Card) -> list[str]:
    columns = list(card.scores)
    rows = sorted({name for scores in card.scores.values() for name in scores})
    if not rows:
        return []
    table = [f"| {name} | " + " | ".join(_figure(card.scores[c].get(name)) for c in columns) + " |" for name in rows]
    return ["", "## Scores", "", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|", *table]


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value).replace("|", "/")


def _public_config(folder: Path, card: Card) -> str:
    """peft's configuration, with the base's name instead of its folder on the operator's machine."""
    return json.dumps({**peft_config(folder), "base_model_name_or_path": card.base}, indent=2, sort_keys=True) + "\n"


def _public_base(base: str) -> str:
    """A hub name as it is; the last part of a folder's path."""
    path = Path(base)
    local = path.is_absolute() or base.startswith((".", "~")) or "\\" in base or len(path.parts) > 2 or path.is_dir()
    return path.name if local else base


def _is_local(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_local(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(_is_local(item) for item in value)
    return isinstance(value, (str, Path)) and (Path(value).is_absolute() or "/" in str(value) or "\\" in str(value))


def _refusal(error: HfHubHTTPError, address: str, repo: str) -> str:
    status = error.response.status_code if error.response is not None else 0
    if status in {401, 403}:
        return (
            f"{address} does not let you write to {repo} ({status}):"
            " log in with `hf auth login` or set HF_TOKEN to a token that may write"
        )
    reason = " ".join(str(error).split())[:200]
    return f"{address} did not accept the adapter ({status}: {reason}): try again later or check the repo's name"


@contextmanager
def _quiet_hub_client() -> Iterator[None]:
    """Suppress the hub client's note that streams are uploaded by LFS."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
