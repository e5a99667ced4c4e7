"""What a server has done so far, as text that Prometheus reads."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: the upper ends of the buckets that answers are counted in."""


class Figures:
    """Counts requests, examples and batches; touched by the event loop only."""

    def __init__(self) -> None:
        self.requests: Counter[int] = Counter()
        """Status → predict requests answered so."""
        self.examples = 0
        """Examples answered."""
        self.batches = 0
        self.batched = 0
        """Examples in these batches."""
        self.under_way = 0
        """Requests that are being read, asked or answered."""
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def batch(self, rows: int) -> None:
        """Count a batch."""
        self.batches += 1
        self.batched += rows

    def request(self, status: int, rows: int, seconds: float) -> None:
        """Count a request."""
        self.requests[status] += 1
        self.examples += rows
        self._buckets[bisect.bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def text(self, **others: float) -> str:
        """All figures, and others by their names."""
        return "\n".join(self._lines(others)) + "\n"

    def _lines(self, others: dict[str, float]) -> Iterator[str]:
        yield "# TYPE headrace_requests_total counter"
        for status, count in sorted(self.requests.items()):
            yield f'headrace_requests_total{{status="{status}"}} {count}'
        yield "# TYPE headrace_request_seconds histogram"
        below = 0
        for bound, count in zip((*BOUNDS, "+Inf"), self._buckets, strict=True):
            below += count
            yield f'headrace_request_seconds_bucket{{le="{bound}"}} {below}'
        yield f"headrace_request_seconds_sum {self._seconds:.6f}"
        yield f"headrace_request_seconds_count {below}"
        totals = {"examples": self.examples, "batches": self.batches, "batched_examples": self.batched}
        for name, total in totals.items():
            yield from (f"# TYPE headrace_{name}_total counter", f"headrace_{name}_total {total}")
        for name, value in {"requests_under_way": self.under_way, **others}.items():
            kind = "counter" if name.endswith("_total") else "gauge"
            yield from (f"# TYPE headrace_{name} {kind}", f"headrace_{name} {value:g}")
