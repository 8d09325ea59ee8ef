"""Every refusal and failure a caller can meet: slug, status, sentence.

One table for the body, the log and the README; knows nothing of how an answer is written.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """One outcome that is not the service's own answer.

    `slug` names it everywhere, `status` is the HTTP status, `sentence` says what was wrong and what is
    allowed.
    4xx is what the caller did; 5xx is ours or the service's, since clients read a 4xx on the token PUT
    as "not on this cloud" (cloud-init then boots without its data source).
    """

    slug: str
    status: int
    sentence: str


# The message
BAD_REQUEST = Refusal("bad-request", 400, "This is not a well-formed HTTP/1.0 or HTTP/1.1 request.")
HEAD_TOO_LARGE = Refusal("head-too-large", 431, "The request head is larger than limits.head.")
HEAD_TIMEOUT = Refusal("head-timeout", 408, "The request did not arrive within limits.head_timeout.")
FOLDED_HEADER = Refusal("folded-header", 400, "Folded header lines are refused.")
DUPLICATE_HEADER = Refusal("duplicate-header", 400, "This header may stand only once in a request.")
HOP_TOKEN = Refusal("hop-token", 400, "A token header named in Connection is refused.")
FRAMING = Refusal("framing", 400, "Only a bodyless request, or an empty chunked token PUT, is accepted.")
METHOD = Refusal("method", 405, "Only GET and HEAD on items and PUT on the token path are accepted.")
METHOD_OVERRIDE = Refusal("method-override", 400, "Method override headers are refused.")
TOKEN_PATH = Refusal("token-path", 405, "The token path accepts PUT only.")

# The target
TARGET_FORM = Refusal("target-form", 400, "The target must be a path that begins with a slash.")
TARGET_LENGTH = Refusal("target-length", 414, "The target is longer than limits.target.")
TARGET_DOTS = Refusal("target-dots", 400, "Dot segments in the target are refused.")
TARGET_PARAMS = Refusal("target-params", 400, "Path parameters (;) in the target are refused.")
TARGET_ENCODING = Refusal(
    "target-encoding",
    400,
    "The target's percent-encoding is broken, doubled, or hides a slash, a backslash, a query, "
    "a control or a non-ASCII byte.",
)
TARGET_CHARACTER = Refusal("target-character", 400, "The target has a character that is refused.")
TARGET_QUERY = Refusal("target-query", 400, "This item takes no query.")

# Where it seems to come from
HOST = Refusal("host", 403, "Host must be the metadata address or the address connected to.")
RELAYED = Refusal("relayed", 403, "The request was relayed by a proxy.")
BROWSER = Refusal("browser", 403, "The request was made by a browser.")
LOOP = Refusal("loop", 508, "The caller is the proxy itself.")

# Sessions and tokens
TOKEN_TTL = Refusal(
    "token-ttl", 400, "The token TTL header must be a whole number of seconds from 1 to 21600."
)
TOKEN_INVALID = Refusal("token-invalid", 401, "The token is invalid or has expired.")
TOKEN_BINDING = Refusal("token-binding", 401, "The token was given to another caller.")
LEGACY_REFUSED = Refusal("legacy-refused", 403, "Normal mode is refused; a token is required.")
UNRESOLVED = Refusal("unresolved", 403, "A caller that cannot be named may not read a sensitive item.")
CONTAINER = Refusal(
    "container", 403, "A container may read a sensitive item only by a rule that names the container."
)
RULE = Refusal("rule", 403, "A rule of policy.rules refuses this.")
RULE_LEGACY = Refusal(
    "rule-legacy", 403, "A rule of policy.rules refuses normal mode here; a token is required."
)
DEFAULT_DENY = Refusal(
    "default-deny", 403, "No rule of policy.rules allows this, and policy.default is deny."
)
SHARED_SOCKET = Refusal(
    "shared-socket", 403, "Another process that holds this connection may not read this item."
)

# How fast
RATE = Refusal("rate", 429, "The caller reads faster than its limit; try again later.")
BUSY = Refusal("busy", 429, "The budget of calls to the metadata service is used up; try again later.")

# Ours
TOO_MANY_CONNECTIONS = Refusal("too-many-connections", 503, "The connection limit is reached.")
INTERNAL = Refusal("internal", 500, "The proxy failed; its log says why.")

# The real service
DEADLINE = Refusal("deadline", 503, "The metadata service did not answer in time; try again.")
UNREACHABLE = Refusal("unreachable", 503, "The metadata service cannot be reached; try again.")
TOKEN_UNAVAILABLE = Refusal("token-unavailable", 503, "The metadata service gives no token now; try again.")
TOKEN_REJECTED = Refusal(
    "token-rejected", 503, "The metadata service rejects its own fresh token; try again."
)
UPSTREAM_BROKEN = Refusal("upstream-broken", 502, "The metadata service sent a broken or cut answer.")
UPSTREAM_TOO_LARGE = Refusal(
    "upstream-too-large", 502, "The metadata service sent more than upstream.max_response."
)
UPSTREAM_REDIRECT = Refusal("upstream-redirect", 502, "The metadata service sent a redirect.")
UPSTREAM_FOREIGN = Refusal("upstream-foreign", 502, "Something other than the metadata service answered.")

FORM_REFUSALS = frozenset({HOST, RELAYED, BROWSER, LOOP})
"""The request itself is what is wrong, whoever sends it."""

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
