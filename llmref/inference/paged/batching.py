"""How many steps do many answers take on a few places?"""

import heapq
from collections.abc import Iterable

from llmref._require import require_size


def decode_steps(lengths: Iterable[int], places: int, *, continuous: bool) -> int:
    """Steps until all requests are done, each of which needs `lengths[i]` steps on one place.

    All requests are there from the start, and are served in their order. Static batches of `places`
    requests wait for their longest one; a continuous batch gives a free place to the next request.
    decode_steps([1, 3, 1, 2], 2, continuous=False) = 3 + 2; continuous it is 4.
    Source: Yu et al. 2022 (Orca), OSDI (scheduling at each step).
    Raises: ValueError if a length or places is below 1; TypeError unless they are ints.
    """
    require_size(1, places=places)
    lengths = list(lengths)
    for length in lengths:
        require_size(1, length=length)
    if not continuous:
        return sum(max(lengths[i : i + places]) for i in range(0, len(lengths), places))
    ends: list[int] = []  # when each place is free again
    for length in lengths:
        start = heapq.heappop(ends) if len(ends) == places else 0
        heapq.heappush(ends, start + length)
    return max(ends, default=0)  # eq. eq-paged-batching
