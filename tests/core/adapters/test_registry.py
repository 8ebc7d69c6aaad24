"""The registry: what comes onto it, what speaks, and what is refused. No model and no torch here."""

import json
import multiprocessing
import os
import struct
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core.adapters import CARD, AdapterRegistry, Card, check
from core.adapters import registry as registry_module
from core.adapters.validation import CONFIG, WEIGHTS, fingerprint, folder_fingerprint, same_base, weights_sha256
from core.errors import AdapterError
from core.generator import Adapter

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
GPT2 = fingerprint(
    {"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
)


def weights(tensors: dict[str, list[int]]) -> bytes:
    """A safetensors file of zeros."""
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 4 * shape[0] * shape[1]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


LAYER = "base_model.model.transformer.h.0.attn.c_attn"
WHOLE = weights({f"{LAYER}.lora_A.weight": [2, 8], f"{LAYER}.lora_B.weight": [24, 2]})


def adapter(folder: Path, *, content: bytes | None = WHOLE, **options: Any) -> Path:
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "target_modules": ["c_attn"], "base_model_name_or_path": "gpt2", **options}
    (folder / CONFIG).write_text(json.dumps(config))
    if content is not None:
        (folder / WEIGHTS).write_bytes(content)
    return folder


def card(name: str, *, hour: int = 0, **more: Any) -> Card:
    more = {"base": "gpt2", "base_fingerprint": GPT2, **more}
    return Card(id=name, created_at=NOON + timedelta(hours=hour), **more)


def speaks(registry: AdapterRegistry, base: str | None = None) -> str | None:
    current = registry.current(base=base)
    return current.id if current else None


def test_a_card_survives_its_json() -> None:
    """Every field comes back, and fields of a newer program are kept."""
    made = card("x", people=("a1", "b2"), config={"rank": 8}, scores={"new": {"bits_per_byte": 1.9}}, passed=True)
    assert Card.from_json(made.to_json()) == made
    newer = json.loads(made.to_json()) | {"mood": "sunny"}
    read = Card.from_json(json.dumps(newer))
    assert read.extra == {"mood": "sunny"}
    assert json.loads(read.to_json()) == newer


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"id": 3, "created_at": "2026-01-01", "base": "x"}'])
def test_a_damaged_card_is_one_sentence(text: str) -> None:
    """Whatever stands in card.json, a person reads a sentence."""
    with pytest.raises(AdapterError, match="card cannot be read"):
        Card.from_json(text)


def test_promotions_and_rollbacks_read_like_a_diary(registry: AdapterRegistry) -> None:
    """Nothing speaks at first; `use` promotes; `rollback` walks back to where it began."""
    assert speaks(registry) is None
    for name in ("one", "two", "three", "two"):
        registry.use(name)
        assert speaks(registry) == name
    walked = [
        (adapter.id if adapter else None) for adapter in (registry.rollback(), registry.rollback(), registry.rollback())
    ]
    assert walked == ["three", "two", "one"]
    assert registry.rollback() is None
    assert speaks(registry) is None
    with pytest.raises(AdapterError, match="no earlier adapter"):
        registry.rollback()


def test_using_the_same_twice_is_one_promotion(registry: AdapterRegistry) -> None:
    """A cron job that promotes what speaks already leaves rollback meaningful."""
    registry.use("one")
    registry.use("two")
    registry.use("two")
    rolled = registry.rollback()
    assert rolled is not None
    assert rolled.id == "one"


def test_a_withdrawn_adapter_never_speaks_again(registry: AdapterRegistry) -> None:
    """The one before it takes over, and neither use, find nor rollback brings it back."""
    registry.use("one")
    registry.use("two")
    successor = registry.withdraw("two", "a member\nasked to be forgotten")
    assert successor is not None
    assert successor.id == speaks(registry) == "one"
    for attempt in (registry.use, registry.find):
        with pytest.raises(AdapterError, match=r"out of service \(a member asked to be forgotten\)"):
            attempt("two")
    assert registry.rollback() is None


@pytest.mark.parametrize(("passed", "successor"), [(True, "three"), (False, None), (None, None)])
def test_an_heir_passed_the_gate_or_spoke_before(
    registry: AdapterRegistry, tmp_path: Path, passed: bool | None, successor: str
) -> None:
    """When the only voice is withdrawn, an untested or failed adapter does not start to speak by itself."""
    registry.withdraw("three", "makes room")
    registry.add(tmp_path / "made", card("three", hour=9, passed=passed))
    registry.use("one")
    registry.withdraw("one", "forgotten")
    assert speaks(registry) == successor


def test_an_heir_fits_the_base(registry: AdapterRegistry, tmp_path: Path) -> None:
    """An adapter of another base is no successor."""
    other = card("medium", passed=True)
    registry.add(tmp_path / "made", Card(**{**_fields(other), "base_fingerprint": GPT2.replace("768", "1024")}))
    registry.use("one")
    assert registry.withdraw("one", "forgotten") is None


def _fields(made: Card) -> dict[str, Any]:
    return {name: getattr(made, name) for name in made.__slots__}


def test_who_learned_from_a_person(registry: AdapterRegistry, tmp_path: Path) -> None:
    """Forget-me finds every adapter in service that learned from the person."""
    registry.add(tmp_path / "made", card("four", people=("p1", "p2")))
    registry.add(tmp_path / "made", card("five", people=("p1",)))
    assert {found.id for found in registry.learned_from("p1")} == {"four", "five"}
    registry.withdraw("five", "p1 asked")
    assert {found.id for found in registry.learned_from("p1")} == {"four"}


def test_the_bundled_adapter_speaks_until_another_is_promoted(tmp_path: Path) -> None:
    """It is listed, speaks with the starter only, comes back by rollback, and is never written to."""
    bundled = tmp_path / "bundled"
    adapter(bundled / "small-talk")
    (bundled / "small-talk" / CARD).write_text(card("small-talk").to_json())
    registry = AdapterRegistry(tmp_path / "adapters", bundled={"starter": bundled}, clock=lambda: NOON)
    registry.add(adapter(tmp_path / "made"), card("mine", hour=1, base="starter"))
    assert [entry.id for entry in registry.cards()] == ["mine", "small-talk"]
    assert (speaks(registry, "starter"), speaks(registry, "gpt2"), speaks(registry)) == ("small-talk", None, None)
    registry.use("mine")
    assert speaks(registry, "starter") == "mine"
    registry.rollback()
    assert speaks(registry) == "small-talk"
    registry.use("none")
    assert speaks(registry, "starter") is None
    with pytest.raises(AdapterError, match="comes with the program"):
        registry.withdraw("small-talk", "x")


def test_each_base_has_a_voice_of_its_own(tmp_path: Path) -> None:
    """What was promoted for one base does not speak on another that ships with a voice."""
    bundled = {}
    for base, name in (("starter", "small-talk"), ("smollm2", "smollm2-talk")):
        bundled[base] = tmp_path / base
        adapter(bundled[base] / name)
        (bundled[base] / name / CARD).write_text(card(name, base=base).to_json())
    registry = AdapterRegistry(tmp_path / "adapters", bundled=bundled, clock=lambda: NOON)
    registry.add(adapter(tmp_path / "made"), card("mine", hour=1, base="smollm2"))
    assert (speaks(registry, "starter"), speaks(registry, "smollm2")) == ("small-talk", "smollm2-talk")
    registry.use("mine")
    assert (speaks(registry, "starter"), speaks(registry, "smollm2")) == ("small-talk", "mine")
    registry.rollback()
    assert speaks(registry, "smollm2") == "smollm2-talk"


def test_what_a_person_types_is_found(registry: AdapterRegistry, tmp_path: Path) -> None:
    """`current`, an id, a folder, `none`, and a repo name that is left to the generator."""
    registry.use("two")
    made = tmp_path / "made"
    found = {spec: registry.find(spec) for spec in ("current", "one", str(made), "none", "", "org/name")}
    assert {spec: got.id if got else None for spec, got in found.items()} == {
        "current": "two",
        "one": "one",
        str(made): "made",
        "none": None,
        "": None,
        "org/name": "org/name",
    }
    for unknown in ("four", "../two", "/nowhere/at/all", "a/b/c", "\0"):
        with pytest.raises(AdapterError, match="there is no adapter called"):
            registry.find(unknown)


@pytest.mark.parametrize("name", ["", "..", ".x", "a/b", "a b", "none", "Current", "x" * 65, "é", "a.", "con\n"])
def test_unsafe_names_are_refused(registry: AdapterRegistry, tmp_path: Path, name: str) -> None:
    """No name can leave the folder or hide one of its own files."""
    with pytest.raises(AdapterError, match="is not a valid adapter name"):
        registry.add(tmp_path / "made", card(name))


def test_a_name_is_taken_once(registry: AdapterRegistry, tmp_path: Path) -> None:
    """An adapter in the registry is never overwritten."""
    with pytest.raises(AdapterError, match="already"):
        registry.add(tmp_path / "made", card("one"))


def test_a_registry_that_cannot_be_written(registry: AdapterRegistry, tmp_path: Path) -> None:
    """A file stands where the folder should be: a sentence that names it, for each way of writing."""
    (tmp_path / "blocked").write_text("")
    blocked = AdapterRegistry(tmp_path / "blocked" / "adapters")
    with pytest.raises(AdapterError, match=r"the adapters in .*blocked.* cannot be written"):
        blocked.add(tmp_path / "made", card("x"))
    with pytest.raises(AdapterError, match="cannot be written"):
        blocked.use("none")
    assert blocked.current() is None
    assert blocked.cards() == ()


def test_a_name_no_file_system_takes_is_a_sentence(registry: AdapterRegistry) -> None:
    """However long the name that somebody types."""
    for long in ("x" * 300, "x/" + "y" * 3000):
        with pytest.raises(AdapterError, match="there is no adapter called") as caught:
            registry.find(long)
        assert len(str(caught.value)) < 250


def test_only_what_was_judged_is_registered(registry: AdapterRegistry, tmp_path: Path) -> None:
    """A card that names other weights than the folder holds is refused, and weights changed later never speak."""
    made = tmp_path / "made"
    with pytest.raises(AdapterError, match="not those that were evaluated"):
        registry.add(made, card("other", weights_sha256="0" * 64))
    added = registry.add(made, card("four", weights_sha256=weights_sha256(made)))
    (added.path / WEIGHTS).write_bytes(WHOLE[:-4] + struct.pack("<f", 1.0))
    with pytest.raises(AdapterError, match="do not match its card"):
        registry.use("four")


def test_what_cannot_speak_is_not_promoted(registry: AdapterRegistry) -> None:
    """A test that fails leaves the old voice current; the bare base needs none."""

    def test(tried: Adapter) -> None:
        if tried.id == "two":
            raise AdapterError("the adapter 'two' overflows: choose another")

    for name in ("one", "none", "one"):
        registry.use(name, test=test)
    with pytest.raises(AdapterError, match="overflows"):
        registry.use("two", test=test)
    assert speaks(registry) == "one"


@pytest.mark.parametrize(("passed", "forced"), [(True, False), (None, False), (False, True)])
def test_force_is_noted_where_it_was_needed(
    registry: AdapterRegistry, tmp_path: Path, passed: bool | None, forced: bool
) -> None:
    """A card does not say that an adapter failed which passed."""
    registry.add(tmp_path / "made", card("four", passed=passed))
    registry.use("four", by_force=True)
    assert registry.card("four").promoted_by_force is forced


def test_rollback_passes_over_a_damaged_predecessor(registry: AdapterRegistry, tmp_path: Path) -> None:
    """One that is cut short is no voice to go back to; the one before it is."""
    for name in ("one", "two", "three"):
        registry.use(name)
    (tmp_path / "adapters" / "two" / WEIGHTS).write_bytes(WHOLE[:-9])
    rolled = registry.rollback()
    assert rolled is not None
    assert rolled.id == speaks(registry) == "one"


def test_erasing_follows_no_link_out_of_the_registry(registry: AdapterRegistry, tmp_path: Path) -> None:
    """Somebody's own folder, linked into the registry, keeps its files; the registry forgets it."""
    own = adapter(tmp_path / "own")
    (tmp_path / "adapters" / "linked").symlink_to(own)
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    registry.withdraw("linked", "a member asked", erase=True)
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    assert registry.card("linked").withdrawn == "a member asked"
    assert not (registry.path("linked") / WEIGHTS).exists()


def _die_while_adding(root: Path, made: Path) -> None:
    """The process ends where the weights are copied and the card is not written."""
    registry = AdapterRegistry(root)
    registry_module.write_atomically = lambda *others: os._exit(9)  # type: ignore[attr-defined]
    registry.add(made, card("four"))


def test_what_a_killed_writer_left_is_swept(registry: AdapterRegistry, tmp_path: Path) -> None:
    """Killed in the middle of `add`, a process leaves weights; the next writer, or a sweep, deletes them."""
    root = tmp_path / "adapters"
    for sweep in (registry.sweep, partial(registry.use, "one")):
        killed = multiprocessing.get_context("spawn").Process(target=_die_while_adding, args=(root, tmp_path / "made"))
        killed.start()
        killed.join()
        assert killed.exitcode == 9
        assert len(list(root.glob(f".new-*/*/{WEIGHTS}"))) == 1
        sweep()
        assert not list(root.glob(".new-*"))
    assert not registry.taken("four")


def _add(root: Path, made: Path, name: str) -> None:
    with suppress(AdapterError):
        AdapterRegistry(root).add(made, card(name))


def test_two_that_add_one_name_are_one_adapter(tmp_path: Path) -> None:
    """The registry is locked while it is written: one of them comes first, the other is told, nothing is mixed."""
    made, root = adapter(tmp_path / "made"), tmp_path / "adapters"
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_add, args=(root, made, "same")) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert [found.id for found in AdapterRegistry(root).cards()] == ["same"]
    check(root / "same")
    assert not list(root.glob(".new-*"))


def test_checkpoints_and_pickles_stay_behind(registry: AdapterRegistry, tmp_path: Path) -> None:
    """A training folder becomes an adapter without its optimizer states."""
    made = tmp_path / "made"
    (made / "checkpoint-5").mkdir()
    (made / "training_args.bin").write_bytes(b"pickle")
    added = registry.add(made, card("lean"))
    assert sorted(path.name for path in added.path.iterdir()) == [CONFIG, WEIGHTS, CARD]


def test_a_bare_copy_is_an_adapter_too(registry: AdapterRegistry, tmp_path: Path) -> None:
    """peft's files copied by hand need no card; a damaged card hides its adapter alone."""
    adapter(tmp_path / "adapters" / "by-hand")
    adapter(tmp_path / "adapters" / "broken").joinpath(CARD).write_text("{")
    assert registry.card("by-hand").base == "gpt2"
    assert {entry.id for entry in registry.cards()} == {"one", "two", "three", "by-hand"}


def test_a_pointer_to_nothing_falls_back(registry: AdapterRegistry, tmp_path: Path) -> None:
    """Somebody deleted the current adapter's folder: the one before speaks."""
    registry.use("one")
    registry.use("two")
    (tmp_path / "adapters" / "two").rename(tmp_path / "gone")
    assert speaks(registry) == "one"


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no weights", {"content": None}, "has no adapter_model.safetensors"),
    ("a pickle", {"content": None, "pickle": True}, "pickle"),
    ("cut in the header", {"content": WHOLE[:60]}, "damaged or cut short"),
    ("cut in the weights", {"content": WHOLE[:-1]}, "damaged or cut short"),
    ("longer than it says", {"content": WHOLE + b"x"}, "damaged or cut short"),
    ("empty", {"content": b""}, "damaged or cut short"),
    ("a huge header", {"content": struct.pack("<Q", 2**62) + b"{}"}, "damaged or cut short"),
    ("a header of lists", {"content": struct.pack("<Q", 2) + b"[]"}, "damaged or cut short"),
    ("IA3", {"peft_type": "IA3"}, "only LORA"),
    ("DoRA", {"use_dora": True}, "DoRA"),
    ("saved modules", {"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ("other modules", {"target_modules": ["query_key_value", "c_attn"]}, "changes query_key_value"),
    ("the head", {"target_modules": ["lm_head"]}, "changes lm_head"),
    ("no modules", {"target_modules": None}, "no named modules"),
    ("an alpha of letters", {"lora_alpha": "x"}, "invalid configuration"),
    ("an alpha beyond numbers", {"lora_alpha": 1e300}, "invalid configuration"),
    ("an alpha that is no number", {"lora_alpha": float("nan")}, "invalid configuration"),
    ("an infinite alpha for one layer", {"alpha_pattern": {"c_attn": float("inf")}}, "invalid configuration"),
    ("a pattern that is none", {"alpha_pattern": {"(": 1}}, "invalid configuration"),
    ("a rank of nothing", {"r": 0}, "invalid configuration"),
    ("a rank beyond any layer", {"r": 10**9}, "invalid configuration"),
    ("a rank of letters", {"rank_pattern": {"c_attn": "x"}}, "invalid configuration"),
    ("a dropout above one", {"lora_dropout": 1.5}, "invalid configuration"),
    ("a flag that is none", {"use_rslora": "perhaps"}, "invalid configuration"),
    ("an unknown bias", {"bias": "some"}, "invalid configuration"),
    ("layers below zero", {"layers_to_transform": [-1]}, "invalid configuration"),
    ("modules that are no names", {"target_modules": [3]}, "invalid configuration"),
    ("PiSSA", {"init_lora_weights": "pissa"}, "changes the base"),
    ("no tensors", {"content": weights({})}, "holds no weights"),
    (
        "ranks that do not match",
        {"content": weights({f"{LAYER}.lora_A.weight": [2, 8], f"{LAYER}.lora_B.weight": [24, 3]})},
        "ranks do not match",
    ),
    ("a number that is not finite", {"content": WHOLE[:-4] + struct.pack("<f", float("inf"))}, "not finite"),
    ("a stray tensor", {"content": weights({"base_model.model.transformer.wte.lora_A": [2, 8]})}, "wte"),
]


@pytest.mark.parametrize(("what", "case", "says"), REFUSED, ids=[what for what, _, _ in REFUSED])
def test_what_is_no_adapter_is_refused(tmp_path: Path, what: str, case: dict[str, Any], says: str) -> None:
    """Each fault gets one sentence, before torch hears of the files."""
    options = dict(case)
    pickle = options.pop("pickle", False)
    folder = adapter(tmp_path / "bad", **options)
    if pickle:
        (folder / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(AdapterError, match=says) as caught:
        check(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_without_anything(tmp_path: Path) -> None:
    """A missing or empty folder, or a configuration that is no JSON."""
    with pytest.raises(AdapterError, match="is not a folder"):
        check(tmp_path / "nowhere")
    with pytest.raises(AdapterError, match=r"has no adapter_config\.json"):
        check(tmp_path)
    (tmp_path / CONFIG).write_text("{")
    with pytest.raises(AdapterError, match="cannot be read"):
        check(tmp_path)


def test_fingerprints_tell_bases_apart() -> None:
    """Another shape or other weights is another base; the same weights in half precision are the same base."""
    shape = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 9, "n_positions": 4}
    plain, wide = fingerprint(shape), fingerprint(shape | {"n_embd": 16})
    probed, other = fingerprint(shape, [0.1, -0.2, 0.3]), fingerprint(shape, [0.1, 0.2, 0.3])
    halved = fingerprint(shape, [0.10009765625, -0.2001953125, 0.30078125])
    assert plain == "gpt2 8x1x1, 9 tokens, 4 positions"
    assert same_base(plain, probed)
    assert same_base(probed, halved)
    assert same_base(plain, "")
    assert not same_base(plain, wide)
    assert not same_base(probed, other)


def test_a_fingerprint_is_read_from_a_folder(tmp_path: Path) -> None:
    """Without torch: config.json and the first numbers of the token embedding."""
    config = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 2, "n_positions": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    header = {"transformer.wte.weight": {"dtype": "F32", "shape": [2, 8], "data_offsets": [0, 64]}}
    text = json.dumps(header).encode()
    values = [0.5, -1.25, *[0.0] * 14]
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<16f", *values))
    assert folder_fingerprint(tmp_path).startswith("gpt2 8x1x1, 2 tokens, 4 positions +0.5000 -1.2500 +0.0000")


def _promote_many(root: Path, name: str, times: int) -> None:
    registry = AdapterRegistry(root)
    for _ in range(times):
        registry.use(name)
        if name == "three":
            registry.rollback()


def test_processes_that_promote_at_once_leave_a_valid_pointer(registry: AdapterRegistry, tmp_path: Path) -> None:
    """Three processes promote and roll back while this one reads: it always reads a whole id, and all succeed."""
    registry.use("one")
    context = multiprocessing.get_context("spawn")
    root = tmp_path / "adapters"
    others = [context.Process(target=_promote_many, args=(root, name, 15)) for name in ("one", "two", "three")]
    for other in others:
        other.start()
    seen: set[str | None] = set()
    while any(other.is_alive() for other in others):
        seen.add(speaks(registry))
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert seen <= {"one", "two", "three"}
    assert not list(root.glob(".current-*"))
