"""Every refusal and failure a caller can meet: slug, status, sentence.

One table for the body, the log and the README; knows nothing of how an answer is written.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """One outcome that is not the service's own answer.

    `slug` names it everywhere, `status` is the HTTP status, `sentence` says what was wrong and what is
    allowed. `close` ends the connection, for whatever leaves the framing in doubt.
    4xx is what the caller did; 5xx is ours or the service's, since clients read a 4xx on the token PUT
    as "not on this cloud" (cloud-init then boots without its data source).
    """

    slug: str
    status: int
    sentence: str
    close: bool = False


def _r(slug: str, status: int, sentence: str, *, close: bool = False) -> Refusal:
    return Refusal(slug, status, sentence, close)


# The message
BAD_REQUEST = _r("bad-request", 400, "This is not a well-formed HTTP/1.0 or HTTP/1.1 request.", close=True)
HEAD_TOO_LARGE = _r("head-too-large", 431, "The request head is larger than limits.head.", close=True)
HEAD_TIMEOUT = _r("head-timeout", 408, "The request did not arrive within limits.head_timeout.", close=True)
FOLDED_HEADER = _r("folded-header", 400, "Folded header lines are refused.", close=True)
DUPLICATE_HEADER = _r("duplicate-header", 400, "This header may stand only once in a request.", close=True)
HOP_TOKEN = _r("hop-token", 400, "A token header named in Connection is refused.", close=True)
FRAMING = _r(
    "framing", 400, "Only a bodyless request, or an empty chunked token PUT, is accepted.", close=True
)
METHOD = _r("method", 405, "Only GET and HEAD on items and PUT on the token path are accepted.", close=True)
METHOD_OVERRIDE = _r("method-override", 400, "Method override headers are refused.", close=True)
TOKEN_PATH = _r("token-path", 405, "The token path accepts PUT only.", close=True)

# The target
TARGET_FORM = _r("target-form", 400, "The target must be a path that begins with a slash.", close=True)
TARGET_LENGTH = _r("target-length", 414, "The target is longer than limits.target.", close=True)
TARGET_DOTS = _r("target-dots", 400, "Dot segments in the target are refused.", close=True)
TARGET_PARAMS = _r("target-params", 400, "Path parameters (;) in the target are refused.", close=True)
TARGET_ENCODING = _r(
    "target-encoding",
    400,
    "The target's percent-encoding is broken, doubled, or hides a slash, a backslash, a query, "
    "a control or a non-ASCII byte.",
    close=True,
)
TARGET_CHARACTER = _r("target-character", 400, "The target has a character that is refused.", close=True)
TARGET_QUERY = _r("target-query", 400, "This item takes no query.", close=True)

# Where it seems to come from
HOST = _r("host", 403, "Host must be the metadata address or the address connected to.", close=True)
RELAYED = _r("relayed", 403, "The request was relayed by a proxy.")
BROWSER = _r("browser", 403, "The request was made by a browser.")
LOOP = _r("loop", 508, "The caller is the proxy itself.", close=True)

# Sessions and tokens
TOKEN_TTL = _r("token-ttl", 400, "The token TTL header must be a whole number of seconds from 1 to 21600.")
TOKEN_INVALID = _r("token-invalid", 401, "The token is invalid or has expired.")
TOKEN_BINDING = _r("token-binding", 401, "The token was given to another caller.")
LEGACY_REFUSED = _r("legacy-refused", 403, "Normal mode is refused; a token is required.")
UNRESOLVED = _r("unresolved", 403, "A caller that cannot be named may not read a sensitive item.")

# Ours
TOO_MANY_CONNECTIONS = _r("too-many-connections", 503, "The connection limit is reached.", close=True)
INTERNAL = _r("internal", 500, "The proxy failed; its log says why.", close=True)

# The real service
DEADLINE = _r("deadline", 503, "The metadata service did not answer in time; try again.")
UNREACHABLE = _r("unreachable", 503, "The metadata service cannot be reached; try again.")
TOKEN_UNAVAILABLE = _r("token-unavailable", 503, "The metadata service gives no token now; try again.")
TOKEN_REJECTED = _r("token-rejected", 503, "The metadata service rejects its own fresh token; try again.")
UPSTREAM_BROKEN = _r("upstream-broken", 502, "The metadata service sent a broken or cut answer.")
UPSTREAM_TOO_LARGE = _r(
    "upstream-too-large", 502, "The metadata service sent more than upstream.max_response."
)
UPSTREAM_REDIRECT = _r("upstream-redirect", 502, "The metadata service sent a redirect.")
UPSTREAM_FOREIGN = _r("upstream-foreign", 502, "Something other than the metadata service answered.")

REFUSALS: tuple[Refusal, ...] = tuple(value for value in list(globals().values()) if type(value) is Refusal)


class Refused(Exception):
    """A request ends with `refusal`.

    `detail` is for the log only (it may quote the caller and is escaped there); `retry_after` is in
    seconds and goes out as Retry-After.
    """

    def __init__(self, refusal: Refusal, detail: str = "", retry_after: int | None = None) -> None:
        super().__init__(f"{refusal.slug}: {detail or refusal.sentence}")
        self.refusal = refusal
        self.detail = detail
        self.retry_after = retry_after
