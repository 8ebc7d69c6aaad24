"""The four figures of Kummerfeld et al. (ACL 2019), from gold and predicted links.

Knows line numbers and links, no text. The definitions follow that paper's `graph-eval.py`, `graph-to-cluster.py` and
`conversation-eval.py` (jkkummerfeld/irc-disentanglement, tools/), checked against them; all are percentages over all
logs together.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

Links = Mapping[int, Iterable[int]]
"""Line → the lines it answers; a line that starts a conversation answers itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkScores:
    precision: float
    """Links: of those predicted, how many are gold; a start of a conversation counts as a link to itself."""
    recall: float
    link_f: float
    scaled_vi: float
    """100 for the gold conversations; 100 · (1 - VI / log2 n), VI being Meilă's variation of information (2007)."""
    one_to_one: float
    """Lines in the overlap of gold and predicted conversations paired so that the overlap is greatest."""
    exact_precision: float
    """Conversations of two lines and more that are predicted to the line."""
    exact_recall: float
    exact_f: float
    lines: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def _harmonic(matched: int, predicted: int, wanted: int) -> tuple[float, float, float]:
    precision = 100 * matched / predicted if predicted else 0.0
    recall = 100 * matched / wanted if wanted else 0.0
    return precision, recall, 2 * precision * recall / (precision + recall) if matched else 0.0


def conversations(links: Links) -> list[frozenset[int]]:
    """The connected lines, without those before the first line that has a link: they are context."""
    parent: dict[int, int] = {}

    def find(line: int) -> int:
        while parent.setdefault(line, line) != line:
            parent[line] = parent[parent[line]]
            line = parent[line]
        return line

    for line, answers in links.items():
        for answer in answers:
            parent[find(line)] = find(answer)
    first = min(links, default=0)
    groups: dict[int, set[int]] = {}
    for line in parent:
        if line >= first:
            groups.setdefault(find(line), set()).add(line)
    return [frozenset(group) for group in groups.values()]


def best_pairing(gain: NDArray[np.int64]) -> int:
    """The greatest sum of entries of `gain` (R, C), no two in one row or column.

    Shortest augmenting paths with potentials (Jonker and Volgenant 1987), a row at a time.
    """
    if gain.shape[0] > gain.shape[1]:
        gain = gain.T
    rows, columns = gain.shape
    cost = (gain.max(initial=0) - gain).astype(np.float64)
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    holder = np.zeros(columns + 1, np.int64)  # row that holds a column; 0 for none, so both count from 1
    for row in range(1, rows + 1):
        holder[0] = row
        reached = np.zeros(columns + 1, bool)
        slack = np.full(columns + 1, np.inf)
        way = np.zeros(columns + 1, np.int64)
        at = 0
        while holder[at]:
            reached[at] = True
            here = holder[at]
            through = cost[here - 1] - row_price[here] - column_price[1:]
            better = ~reached[1:] & (through < slack[1:])
            slack[1:][better] = through[better]
            way[1:][better] = at
            free = np.where(reached, np.inf, slack)
            free[0] = np.inf
            following = int(free.argmin())
            step = free[following]
            row_price[holder[reached]] += step
            column_price[reached] -= step
            slack[~reached] -= step
            at = following
        while at:
            holder[at] = holder[way[at]]
            at = int(way[at])
    return int(sum(gain[holder[column] - 1, column - 1] for column in range(1, columns + 1) if holder[column]))


def _information(gold: list[int], auto: list[int], both: list[int], total: int) -> float:
    """100 · (1 - VI / log2 n); VI = H(gold | auto) + H(auto | gold) = 2 H(both) - H(gold) - H(auto)."""

    def entropy(sizes: list[int]) -> float:
        return -sum(size / total * math.log2(size / total) for size in sizes)

    if total < 2:
        return 100.0
    return 100 - 100 * (2 * entropy(both) - entropy(gold) - entropy(auto)) / math.log2(total)


def evaluate(gold: Mapping[str, Links], auto: Mapping[str, Links]) -> LinkScores:
    """Both map a log's name to its links. The logs and their lines must be the same; raises ValueError otherwise."""
    if gold.keys() != auto.keys():
        raise ValueError(f"gold and predicted logs differ: {sorted(gold.keys() ^ auto.keys())}")
    wanted = predicted = matched = pairs = 0
    clusters_wanted = clusters_predicted = clusters_matched = 0
    gold_sizes: list[int] = []
    auto_sizes: list[int] = []
    both_sizes: list[int] = []
    for name, gold_links in gold.items():
        gold_pairs = {(line, answer) for line, answers in gold_links.items() for answer in answers}
        auto_pairs = {(line, answer) for line, answers in auto[name].items() for answer in answers}
        wanted, predicted = wanted + len(gold_pairs), predicted + len(auto_pairs)
        matched += len(gold_pairs & auto_pairs)
        gold_groups, auto_groups = conversations(gold_links), conversations(auto[name])
        gold_of = {line: index for index, group in enumerate(gold_groups) for line in group}
        auto_of = {line: index for index, group in enumerate(auto_groups) for line in group}
        if gold_of.keys() != auto_of.keys():
            raise ValueError(f"gold and predicted lines of {name} differ: {sorted(gold_of.keys() ^ auto_of.keys())}")
        table = np.zeros((len(gold_groups), len(auto_groups)), np.int64)
        for (row, column), count in Counter((gold_of[line], auto_of[line]) for line in gold_of).items():
            table[row, column] = count
            both_sizes.append(count)
        pairs += best_pairing(table)
        gold_sizes += [len(group) for group in gold_groups]
        auto_sizes += [len(group) for group in auto_groups]
        gold_long = {group for group in gold_groups if len(group) > 1}
        auto_long = {group for group in auto_groups if len(group) > 1}
        clusters_wanted, clusters_predicted = clusters_wanted + len(gold_long), clusters_predicted + len(auto_long)
        clusters_matched += len(gold_long & auto_long)
    total = sum(gold_sizes)
    precision, recall, link_f = _harmonic(matched, predicted, wanted)
    exact_precision, exact_recall, exact_f = _harmonic(clusters_matched, clusters_predicted, clusters_wanted)
    return LinkScores(
        precision=precision,
        recall=recall,
        link_f=link_f,
        scaled_vi=_information(gold_sizes, auto_sizes, both_sizes, total),
        one_to_one=100 * pairs / total if total else 0.0,
        exact_precision=exact_precision,
        exact_recall=exact_recall,
        exact_f=exact_f,
        lines=total,
    )
