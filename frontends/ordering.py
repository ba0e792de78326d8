"""Orders nodes so that each comes after those whose results it uses.

    ordered({0: {2}, 1: {0}, 2: set()})  ->  ([2, 0, 1], [])          in the nodes' own order as far as possible
    ordered({0: {1}, 1: {0}})            ->  ([], [0, 1])             with a cycle there is no order
"""

import heapq
from collections.abc import Mapping


def ordered(before: Mapping[int, set[int]]) -> tuple[list[int], list[int]]:
    """The nodes in order, and one cycle (in the order of data flow) if that is not possible.

    `before` gives for each node those that must come before it, which are keys, too.
    """
    users: dict[int, list[int]] = {}
    for index, earlier in before.items():
        for other in earlier:
            users.setdefault(other, []).append(index)
    missing = {index: len(earlier) for index, earlier in before.items()}
    ready = [index for index, count in missing.items() if count == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users.get(index, ()):
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, user)
    if len(order) < len(before):
        return [], _cycle(before, set(before) - set(order))
    return order, []


def _cycle(before: Mapping[int, set[int]], left: set[int]) -> list[int]:
    """Nodes of one cycle among `left`, in the order of data flow; each of them depends on another one of them."""
    path: list[int] = [min(left)]
    seen = {path[0]: 0}
    while True:
        index = min(before[path[-1]] & left)
        if index in seen:
            cycle = path[seen[index] :][::-1]
            first = cycle.index(min(cycle))
            return cycle[first:] + cycle[:first]
        seen[index] = len(path)
        path.append(index)
