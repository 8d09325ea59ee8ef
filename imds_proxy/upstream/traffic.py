"""What the calls to the real service came to: counts, and whether it answered last. Plain integers.

Knows nothing of who asked, and of no path.
"""

from __future__ import annotations

from collections.abc import Callable

from imds_proxy.errors import UNREACHABLE, Refused

KINDS = ("get", "put")
OUTCOMES = ("ok", "missing", "refused", "throttled", "error", "failed")
_THROTTLED = (429, 503)


class Traffic:
    """Counts of calls by kind and outcome; `state` says how the last one went. `clock`: seconds, monotonic.

    `failed` is no answer at all; `refused` is 401 or 403, `throttled` 429 or 503, `error` any other status.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.counts = {(kind, outcome): 0 for kind in KINDS for outcome in OUTCOMES}
        self.last_at = clock()
        self.answers: bool | None = None
        self.state = "was not asked yet"

    @property
    def throttled(self) -> int:
        """Calls that the service refused for their rate."""
        return sum(count for (_, outcome), count in self.counts.items() if outcome == "throttled")

    def answered(self, method: str, status: int) -> None:
        """The service answered a call. One that throttles or refuses is there all the same."""
        self._note(method, _outcome(status))
        self.answers = True
        self.state = f"is overloaded ({status})" if status in _THROTTLED else "answers"

    def failed(self, method: str, error: Refused) -> None:
        """A call had no answer."""
        self._note(method, "failed")
        self.answers = False
        if error.refusal is UNREACHABLE:
            self.state = f"cannot be reached ({error.detail})"
        else:
            self.state = f"does not answer as it should ({error.detail or error.refusal.slug})"

    def _note(self, method: str, outcome: str) -> None:
        self.counts["put" if method == "PUT" else "get", outcome] += 1
        self.last_at = self._clock()


def _outcome(status: int) -> str:
    if status < 400:
        return "ok"
    if status == 404:
        return "missing"
    if status in (401, 403):
        return "refused"
    return "throttled" if status in _THROTTLED else "error"
