"""Conversations that speak at the same time: who computes what in the next step, and what becomes of the tokens.

Requests join and leave between steps. A long prompt is read in pieces beside the others' next tokens, so that nobody
waits for it; a piece ends at fixed positions, never where the load of the moment would put it, so that a prompt is
computed alike whoever is there. Knows neither threads nor queues.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from core.generator import INFORMATION, Sampling
from core.generator.engine.keeping import Keeping
from core.generator.engine.lora import Lora
from core.generator.engine.network import Network, Piece, Room
from core.generator.engine.sampling import Chooser, choose
from core.generator.engine.tokens import Tokens

IDLE_PIECES = 4
"""Pieces of prompts read in one step while nobody is in the middle of a reply."""


@dataclass(slots=True, kw_only=True, eq=False)
class Speaker:
    """One request while it runs."""

    sampling: Sampling
    dice: Random
    lora: Lora | None
    conversation: str | None
    room: Room
    tokens: NDArray[np.int64]
    """(prompt + most new tokens,): what is known of it is the first `count`."""
    count: int
    computed: int
    """Tokens whose keys and values are in the room."""
    prompt_tokens: int
    reused: int
    """Prompt tokens that were in the room already."""
    finish: Literal["stop", "length", "damaged"] | None = None
    leader: "Speaker | None" = None
    """Who reads the prompt for it; None once it has the prompt itself."""

    @property
    def reading(self) -> bool:
        """Still in its prompt."""
        return self.count - self.computed > 1

    @property
    def new_tokens(self) -> Sequence[int]:
        ids: list[int] = self.tokens[self.prompt_tokens : self.count].tolist()
        return ids


@dataclass(slots=True, kw_only=True)
class Batch:
    network: Network
    keeping: Keeping
    tokens: Tokens
    piece: int
    """Most tokens of a prompt read at once while others speak."""
    speakers: list[Speaker] = field(default_factory=list)

    def join(
        self, prompt: Sequence[int], *, sampling: Sampling, seed: int, lora: Lora | None, conversation: str | None
    ) -> Speaker | None:
        """Let a request speak; None while there is no memory for it. `prompt` fits the context (`fitted`)."""
        most = len(prompt) + room_for(sampling, self.network.shape.context)
        lent = self.keeping.lend(conversation, prompt, tokens=most, lora=lora)
        if lent is None:
            return None
        room, reused = lent
        known = np.zeros(most, dtype=np.int64)
        known[: len(prompt)] = prompt
        speaker = Speaker(
            sampling=sampling,
            dice=Random(seed),  # noqa: S311 - which word comes next is no secret
            lora=lora,
            conversation=conversation,
            room=room,
            tokens=known,
            count=len(prompt),
            computed=reused,
            prompt_tokens=len(prompt),
            reused=reused,
        )
        self.speakers.append(speaker)
        return speaker

    def rival(self, leader: Speaker, *, seed: int) -> Speaker | None:
        """Another reply to the prompt that `leader`, who has just joined, is going to read; None without memory."""
        prompt = leader.tokens[: leader.prompt_tokens].tolist()
        rival = self.join(prompt, sampling=leader.sampling, seed=seed, lora=leader.lora, conversation=None)
        if rival is not None:
            rival.leader = leader
        return rival

    def information(self, speakers: Sequence[Speaker]) -> list[float]:
        """How much the prompt says about each finished reply, in nats (`core.generator.INFORMATION`)."""
        pieces: list[Piece] = []
        said: list[NDArray[np.int64]] = []
        for speaker in speakers:
            reply = speaker.tokens[speaker.prompt_tokens : speaker.count]
            bare = [*self._last_line(speaker), *reply[:-1].tolist()]
            given = speaker.tokens[speaker.prompt_tokens - 1 : speaker.count - 1].tolist()
            room = self.network.room(len(bare))
            for own, start, tokens in ((speaker.room, speaker.prompt_tokens - 1, given), (room, 0, bare)):
                pieces.append(Piece(room=own, start=start, tokens=tokens, lora=speaker.lora, logits=len(reply)))
                said.append(reply)
        targets = torch.from_numpy(np.concatenate(said))[:, None]
        logits = self.network.forward(pieces)
        nats = (logits.gather(1, targets)[:, 0] - logits.logsumexp(dim=1)).split([len(reply) for reply in said])
        sums = [float(one.sum()) for one in nats]
        return [given - INFORMATION * bare for given, bare in zip(sums[::2], sums[1::2], strict=True)]

    def _last_line(self, speaker: Speaker) -> Sequence[int]:
        """The tokens behind the prompt's last newline: what is left of it when nothing is known."""
        last = self.prompt(speaker).rsplit("\n", 1)[-1]
        return self.tokens.encode(last) or speaker.tokens[: speaker.prompt_tokens][-1:].tolist()

    def prompt(self, speaker: Speaker) -> str:
        return self.tokens.decode(speaker.tokens[: speaker.prompt_tokens].tolist())

    def leave(self, speaker: Speaker) -> None:
        """Done or given up: what it computed is kept for the conversation's next turn."""
        self.speakers.remove(speaker)
        self.keeping.take_back(
            speaker.room,
            conversation=speaker.conversation,
            tokens=speaker.tokens[: speaker.computed].tolist(),
            lora=speaker.lora,
        )

    def step(self) -> int:
        """One token for everybody who is not reading, and some reading; returns how many tokens were chosen."""
        pieces, choosing = self._plan()
        if not pieces:
            return 0
        logits = self.network.forward(pieces)
        if not choosing:
            return 0
        choosers = [
            Chooser(sampling=speaker.sampling, dice=speaker.dice, seen=speaker.tokens[: speaker.count])
            for speaker in choosing
        ]
        for speaker, token in zip(choosing, choose(logits, choosers, self.network.search), strict=True):
            self._heard(speaker, token)
        return len(choosing)

    def text(self, speaker: Speaker) -> str:
        """What it said, without the stop text and without a last character whose bytes never came."""
        said = self.tokens.decode(speaker.new_tokens)
        if speaker.sampling.stop and speaker.finish == "stop":
            said = said.split(speaker.sampling.stop, 1)[0]
        return said.rstrip("\ufffd")

    def _fork(self) -> None:
        """Give rivals the prompt that their leader has read; its last token is theirs to compute."""
        for speaker in self.speakers:
            if speaker.leader is not None and not speaker.leader.reading:
                read = speaker.prompt_tokens - 1
                speaker.room = speaker.leader.room.grown(len(speaker.tokens), keep=read)
                speaker.computed, speaker.leader = read, None

    def _plan(self) -> tuple[list[Piece], list[Speaker]]:
        pieces: list[Piece] = []
        choosing: list[Speaker] = []
        self._fork()
        talking = [speaker for speaker in self.speakers if not speaker.reading and speaker.finish is None]
        for speaker in talking:
            pieces.append(self._piece(speaker, speaker.count))
            choosing.append(speaker)
        budget = self.piece if talking else IDLE_PIECES * self.piece
        for speaker in self.speakers:
            if not speaker.reading or speaker.leader is not None:
                continue
            while budget > 0 and speaker.computed < speaker.count:
                behind = min(speaker.count, (speaker.computed // self.piece + 1) * self.piece)
                budget -= behind - speaker.computed
                pieces.append(self._piece(speaker, behind))
                if behind == speaker.count:
                    choosing.append(speaker)
            if budget <= 0:
                break
        return pieces, choosing

    def _piece(self, speaker: Speaker, behind: int) -> Piece:
        start, speaker.computed = speaker.computed, behind
        return Piece(
            room=speaker.room,
            start=start,
            tokens=speaker.tokens[start:behind].tolist(),
            lora=speaker.lora,
            logits=int(behind == speaker.count),
        )

    def _heard(self, speaker: Speaker, token: int | None) -> None:
        """Add a token; is the reply over? The stop text may end inside a token or span several."""
        if token is None:
            speaker.finish = "damaged"
            return
        speaker.tokens[speaker.count] = token
        speaker.count += 1
        stop = speaker.sampling.stop
        tail = self.tokens.decode(speaker.new_tokens[-len(stop.encode()) :]) if stop else ""
        if token == self.network.shape.end_of_text or (stop and stop in tail):
            speaker.finish = "stop"
        elif speaker.count == len(speaker.tokens):
            speaker.finish = "length"


def room_for(sampling: Sampling, context: int) -> int:
    """Most tokens a reply may have: at least one of the prompt stays in front of it."""
    return min(sampling.max_new_tokens, context - 1)
