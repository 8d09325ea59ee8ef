"""Which of many rules may mean something, without asking each of them: an index by how their patterns begin.

It judges nothing: it leaves out only what surely does not agree, and the rules themselves say the rest.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

Text = str | tuple[str, ...]
"""A value of a fact, or the segments of a path; what it begins with is one of the same kind."""

Condition = tuple[str, tuple[Text, ...]]
"""A fact, and heads: it is met only by what has, of this fact, a text that begins with one of the heads."""


class ConditionIndex:
    """Numbers of things that are under conditions, each kept under the condition that tells most of them
    apart. Things without a condition are always found."""

    __slots__ = ("_heads", "_lengths", "_unconditional", "longest")

    def __init__(self, conditions: Iterable[Sequence[Condition]]) -> None:
        """`conditions` of each thing, all of which must be met; the first thing has the number 0."""
        each = tuple(conditions)
        shared = Counter((fact, head) for own in each for fact, heads in own for head in set(heads))
        self._unconditional: list[int] = []
        self._heads: dict[str, dict[Text, list[int]]] = {}
        for number, own in enumerate(each):
            if not own:
                self._unconditional.append(number)
                continue
            fact, heads = min(own, key=lambda one: max((shared[one[0], head] for head in one[1]), default=0))
            for head in set(heads):
                self._heads.setdefault(fact, {}).setdefault(head, []).append(number)
        self._lengths = {fact: sorted({len(head) for head in heads}) for fact, heads in self._heads.items()}
        self.longest = max((lengths[-1] for lengths in self._lengths.values()), default=0)  # head

    def at(self, texts: Callable[[str], Iterable[Text]]) -> Iterator[int]:
        """The numbers of all whose conditions may be met, in ascending order, some of them more than once.
        `texts` says of a fact what there is of it."""
        found = [self._unconditional]
        for fact in self._heads:
            for text in texts(fact):
                found += self._under(fact, text)
        return heapq.merge(*found)

    def wider(self, conditions: Iterable[Condition]) -> Found:
        """All that may be met wherever these conditions are. Beside a fact stand whole texts here; who is met
        there has a head of each of them, so that the rarest is enough to look for."""
        found = [self._unconditional]
        for fact, texts in conditions:
            if fact in self._heads:
                found += min((self._under(fact, text) for text in texts), key=_size)
        return Found(found)

    def _under(self, fact: str, text: Text) -> list[list[int]]:
        heads, found = self._heads[fact], []
        for length in self._lengths[fact]:
            if length > len(text):
                break
            if (numbers := heads.get(text[:length])) is not None:
                found.append(numbers)
        return found


class Found:
    """Numbers, counted without being put in order: `size` of them, some more than once."""

    __slots__ = ("_lists", "size")

    def __init__(self, lists: list[list[int]]) -> None:
        self._lists = lists
        self.size = _size(lists)

    def __iter__(self) -> Iterator[int]:
        return heapq.merge(*self._lists)


def _size(lists: Iterable[list[int]]) -> int:
    return sum(map(len, lists))
