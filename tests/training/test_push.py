"""Giving an adapter away, and taking it from there, against a stand-in of the hub."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.adapters import CARD, Card
from core.adapters.validation import CONFIG, WEIGHTS, folder_fingerprint
from core.errors import AdapterError
from tests.models import tiny_adapter, tiny_model
from tests.training.hub import Hub, serve
from training.publish.push import public_card, push, readme

PRIVATE = Card(
    id="our-voice",
    created_at=datetime(2026, 11, 22, tzinfo=UTC),
    base="/home/ann/models/tiny",
    base_fingerprint="gpt2 32x2x2, 320 tokens, 64 positions",
    people=("keyed-hash-of-ann",),
    config={"rank": 4, "command": "person2 train /home/ann/talk.txt", "held_out": ["/home/ann/held.txt"]},
    scores={"base": {"bits_per_byte": 2.5}, "new": {"bits_per_byte": 1.9378, "empty": 0}},
    notes="Ann's idea",
)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve(Hub()) as running:
        yield running


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("home-of-ann") / "tiny")


@pytest.fixture(scope="module")
def voice(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_adapter(tmp_path_factory.mktemp("adapters") / "our-voice", base)
    (folder / CARD).write_text(PRIVATE.to_json())
    (folder / "training_args.bin").write_bytes(b"pickle of ann")
    return folder


def test_everything_arrives_in_one_commit(hub: Hub, voice: Path) -> None:
    """peft's two files, the card and a model card; the weights by git-lfs, byte for byte; private at first."""
    address = push(voice, PRIVATE, "club/our-voice", token="hf_good", endpoint=hub.url)
    assert address == f"{hub.url}/club/our-voice"
    files = hub.repos["club/our-voice"]
    assert sorted(files) == ["README.md", CONFIG, WEIGHTS, CARD]
    assert files[WEIGHTS] == (voice / WEIGHTS).read_bytes()
    assert list(hub.stored.values()) == [files[WEIGHTS]]
    assert hub.commits == ["Upload the LoRA adapter our-voice"]
    assert hub.private == {"club/our-voice": True}


def test_nothing_of_people_or_folders_leaves(hub: Hub, voice: Path) -> None:
    """No path, no command, no hash of a person, no note, no pickle."""
    push(voice, PRIVATE, "club/our-voice", token="hf_good", endpoint=hub.url, private=False)
    everything = b"\n".join(hub.repos["club/our-voice"].values())
    for secret in (b"keyed-hash", b"/home", b"home-of-ann", b"talk.txt", b"Ann", b"pickle"):
        assert secret not in everything, secret
    card = Card.from_json(hub.repos["club/our-voice"][CARD].decode())
    assert (card.base, card.config, card.base_fingerprint) == ("tiny", {"rank": 4}, PRIVATE.base_fingerprint)
    assert json.loads(hub.repos["club/our-voice"][CONFIG])["base_model_name_or_path"] == "tiny"


def test_pushing_again_is_another_commit(hub: Hub, voice: Path) -> None:
    """An existing repo is used, and its visibility left alone."""
    for private in (True, False):
        push(voice, PRIVATE, "club/our-voice", token="hf_good", endpoint=hub.url, private=private)
    assert len(hub.commits) == 2
    assert hub.private == {"club/our-voice": True}


def test_the_model_card_reads_well() -> None:
    """Metadata the hub knows, how to speak with it, what it scored, what it may do wrong."""
    text = readme(public_card(replace(PRIVATE, base="gpt2-medium", promoted_by_force=True)), repo="club/our-voice")
    head, body = text.split("---\n")[1:]
    assert "base_model: gpt2-medium\n" in head
    assert "library_name: peft\n" in head
    assert "person2 chat --base gpt2-medium --adapter club/our-voice" in body
    assert "| bits_per_byte | 2.5 | 1.938 |" in body
    assert "| empty | – | 0 |" in body
    assert "Promoted by force" in body
    assert "base_model:" not in readme(public_card(PRIVATE), repo="x/y")


def test_refusals(hub: Hub, voice: Path, tmp_path: Path) -> None:
    """Wrong token, wrong name, a hub that fails or is not there, a withdrawn or pickled adapter: a sentence each."""
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / CONFIG).write_text((voice / CONFIG).read_text())
    (pickled / "adapter_model.bin").write_bytes(b"x")
    withdrawn = replace(PRIVATE, withdrawn="Ann asked")
    nobody = "http://127.0.0.1:9"
    for folder, card, repo, token, endpoint, says in (
        (voice, PRIVATE, "club/voice", "hf_bad", hub.url, "does not let you write .* HF_TOKEN"),
        (voice, PRIVATE, "not a/name", "hf_good", hub.url, "is not a Hugging Face repo name"),
        (voice, PRIVATE, "club/voice", "hf_good", nobody, "could not be reached"),
        (voice, withdrawn, "club/voice", "hf_good", hub.url, r"out of service \(Ann asked\)"),
        (pickled, PRIVATE, "club/voice", "hf_good", hub.url, "pickle"),
    ):
        with pytest.raises(AdapterError, match=says) as caught:
            push(folder, card, repo, token=token, endpoint=endpoint)
        assert token not in str(caught.value)
    hub.broken = True
    with pytest.raises(AdapterError, match="did not accept the adapter"):
        push(voice, PRIVATE, "club/voice", token="hf_good", endpoint=hub.url)


ROUND_TRIP = """
import asyncio, sys
from pathlib import Path
from core.adapters import Card
from core.generator import Adapter, Sampling
from core.generator.transformers import load
from training.publish.push import push

base, voice = Path(sys.argv[1]), Path(sys.argv[2])
card = Card.from_json((voice / "card.json").read_text())
push(voice, card, "club/our-voice")

async def main():
    generator = load(base, device="cpu")
    for adapter in (Adapter(id="here", path=voice), Adapter(id="club/our-voice", path=Path("club/our-voice"))):
        made = await generator.generate("hi", sampling=Sampling(temperature=0, max_new_tokens=9), adapter=adapter)
        print(repr(made.text), file=sys.stdout)
    await generator.close()

asyncio.run(main())
"""


def test_a_pushed_adapter_speaks_from_the_hub(hub: Hub, base: Path, voice: Path, tmp_path: Path) -> None:
    """HF_ENDPOINT and HF_TOKEN are honoured both ways: pushed, fetched by its repo's name, and it says the same."""
    card = replace(PRIVATE, base_fingerprint=folder_fingerprint(base))
    (voice / CARD).write_text(card.to_json())
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_good", "HF_HOME": str(tmp_path / "cache")}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP, str(base), str(voice)],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    here, there = done.stdout.split("\n")[:2]
    assert here == there
    assert "GET /club/our-voice/resolve" in " ".join(hub.asked)
