"""Merging the mirror lists of several objects for one source into one order.

Ported from what the node's configuration is rendered by: every list is a chain of preferences, and a topological sort keeps as
many of them as it can.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Sequence


def merge_mirror_lists(source: str, lists: Iterable[Sequence[str]]) -> list[str]:
    """Merge `lists` of mirrors for `source` into one list, most preferred first.

    An edge goes from each mirror to the next of its list and from the last to the source, unless the list names the source
    itself. Kahn's algorithm, ties broken lexically; a cycle is broken at the lexically first unused node. A trailing source
    is dropped, since it is tried last anyway; elsewhere it stays.
    """
    successors: dict[str, set[str]] = {}
    predecessors: dict[str, set[str]] = {}

    def edge(first: str, second: str) -> None:
        for node in (first, second):
            successors.setdefault(node, set())
            predecessors.setdefault(node, set())
        successors[first].add(second)
        predecessors[second].add(first)

    for mirrors in lists:
        for first, second in itertools.pairwise(mirrors):
            edge(first, second)
        if source not in mirrors:
            edge(mirrors[-1], source)
    merged = _topological_order(successors, predecessors)
    if merged and merged[-1] == source:
        merged.pop()
    return merged


def _topological_order(successors: dict[str, set[str]], predecessors: dict[str, set[str]]) -> list[str]:
    """All nodes, in an order that respects the edges where it can; `predecessors` is used up."""
    in_order = sorted(successors)
    ready = deque(node for node in in_order if not predecessors[node])
    unused = iter(in_order)
    used: dict[str, None] = {}
    while len(used) < len(in_order):
        # Nothing is ready only when what is left is a cycle: break it at its lexically first node.
        node = ready.popleft() if ready else next(n for n in unused if n not in used)
        used[node] = None
        freed = []
        for following in successors[node]:
            predecessors[following].discard(node)
            if not predecessors[following] and following not in used:
                freed.append(following)
        ready.extend(sorted(freed))
    return list(used)
