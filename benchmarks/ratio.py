"""How benchmarks measure: two ways of doing a thing, turn by turn, so that both meet the same machine."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the report: what was compared, the ratio of the times, and the ratio aimed at (at most)."""

    what: str
    ratio: float
    aim: float
    remark: str = ""


def time_ratio(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float, float]:
    """Run both in turn and compare: the median over rounds of ours / theirs, and the median seconds of each.

    The ratio is taken round by round, since a noisy neighbour slows both halves of a round alike.
    """
    ours(), theirs()  # warm
    pairs = []
    for round_ in range(rounds):
        first, second = (ours, theirs) if round_ % 2 else (theirs, ours)
        times = {first: _seconds(first, clock), second: _seconds(second, clock)}
        pairs.append((times[ours], times[theirs]))
    return (
        statistics.median(mine / other for mine, other in pairs),
        statistics.median(mine for mine, _ in pairs),
        statistics.median(other for _, other in pairs),
    )


def _seconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return clock() - start
