"""What can be set on the emulator, checked, and changed by JSON merge patch. Knows no HTTP, does no IO."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace

FAULTS = (
    "reset", "reset_mid_body", "half_body", "hang", "drip", "close_each", "chunked", "garbage", "no_accept",
)  # fmt: skip
"""`reset`: RST before an answer. `reset_mid_body`: half the body, RST. `half_body`: half the body, FIN.
`hang`: no answer until the fault is cleared or the client leaves. `drip`: a byte each 0.2 s. `close_each`:
`Connection: close` after each answer. `chunked`: chunked framing. `garbage`: bytes that are no HTTP.
`no_accept`: new connections stay in the kernel's queue until the fault is cleared, whatever `fault_rate` and
`fault_path` say."""

DEFAULT_USER_DATA = "#cloud-config\npackage_update: false\nruncmd:\n  - [echo, 'hello from user-data']\n"

_ROLE = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_SEGMENT = r"[A-Za-z0-9@:_.=,+-]+"
_ITEM = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Problem:
    """One setting that was refused: its key, what is wrong, what is allowed."""

    key: str
    problem: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}; allowed: {self.allowed}"


class SettingsError(ValueError):
    """Settings were refused, all of them; `problems` says why, one for each key."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can change while the emulator runs. Times in seconds. Raises SettingsError.

    `role` None: no role. `user_data` is text; bytes that are no UTF-8 stand in it as `surrogateescape` has
    them. `latency` delays all answers, `put_latency` token PUTs in addition; up to `latency_spread` more
    is spread evenly, and `tail_rate` of all requests take `tail_latency` more. `throttle` None: no limit,
    else requests a second, PUTs included; `throttle_burst` None: one second's worth. `max_token_ttl` cuts
    what a token really lives, without a word, whatever TTL was granted. `put_status`, `get_status`: every
    such request gets this status. `clock_offset` is added to the wall clock: dates, credentials and tokens
    follow it. `fault` hits data requests, and token PUTs too where `fault_path` names a part of their path;
    `fault_rate` of them. `extra_items`: leaf items to add or override, path below a version to text.
    `hidden_items`: items or whole directories that are not there.
    """

    http_tokens: str = "optional"
    role: str | None = "demo-role"
    user_data: str | None = DEFAULT_USER_DATA
    spot_termination: str | None = None
    latency: float = 0
    put_latency: float = 0
    latency_spread: float = 0
    tail_latency: float = 0
    tail_rate: float = 0
    throttle: float | None = None
    throttle_burst: int | None = None
    throttle_status: int = 429
    retry_after: int | None = None
    credential_life: float = 21600
    rotation_lead: float = 1800
    clock_offset: float = 0
    max_token_ttl: float = 21600
    put_status: int | None = None
    get_status: int | None = None
    fault: str | None = None
    fault_rate: float = 1
    fault_path: str | None = None
    keep_alive: bool = True
    extra_items: Mapping[str, str] = field(default_factory=dict)
    hidden_items: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = []
        for key, rule in _RULES.items():
            value = getattr(self, key)
            if not (rule.fits(value) or (rule.nullable and value is None)):
                problems.append(Problem(key, f"{_quoted(value)} is not", rule.says()))
        if not problems and not self.rotation_lead < self.credential_life:
            problems.append(
                Problem("rotation_lead", f"{self.rotation_lead} is too long", "less than credential_life")
            )
        if problems:
            raise SettingsError(tuple(problems))


def as_json(settings: Settings) -> dict[str, object]:
    """The settings as a JSON object: what `merged` takes back."""
    return {**asdict(settings), "hidden_items": list(settings.hidden_items)}


def merged(settings: Settings, patch: object) -> Settings:
    """The settings with a JSON merge patch (RFC 7396) applied, whole or not at all.

    null on a setting that may be null sets it to that, on another it brings the default back; inside
    `extra_items` null takes the entry away. Raises SettingsError.
    """
    if not isinstance(patch, Mapping):
        raise SettingsError((Problem("", f"{_quoted(patch)} is not", "a JSON object of settings"),))
    unknown = tuple(_unknown(str(key)) for key in patch if key not in _RULES)
    changes: dict[str, object] = {}
    for key, value in patch.items():
        rule = _RULES.get(key)
        if rule is None:
            continue
        if value is None and not rule.nullable:
            value = _default(key)
        elif key == "extra_items" and isinstance(value, Mapping):
            together = {**settings.extra_items, **value}
            value = {path: text for path, text in together.items() if text is not None}
        elif key == "hidden_items" and isinstance(value, list):
            value = tuple(value)
        changes[key] = value
    try:
        changed = replace(settings, **changes)  # type: ignore[arg-type]  # __post_init__ checks each type
    except SettingsError as error:
        raise SettingsError(unknown + error.problems) from None
    if unknown:
        raise SettingsError(unknown)
    return changed


@dataclass(frozen=True, slots=True)
class _Rule:
    allowed: str
    fits: Callable[[object], bool]
    nullable: bool = False

    def says(self) -> str:
        return f"{self.allowed}, or null" if self.nullable else self.allowed


def _number(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _seconds(low: float, high: float, nullable: bool = False) -> _Rule:
    return _Rule(f"seconds from {low:g} to {high:g}", lambda value: _number(value, low, high), nullable)


def _whole(low: int, high: int, nullable: bool = False) -> _Rule:
    return _Rule(
        f"a whole number from {low} to {high}",
        lambda value: isinstance(value, int) and _number(value, low, high),
        nullable,
    )


def _one_of(*words: str, nullable: bool = False) -> _Rule:
    return _Rule(
        f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words, nullable
    )


def _encodable(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _item(path: object) -> bool:
    return isinstance(path, str) and bool(_ITEM.fullmatch(path)) and not path.startswith(("latest/", "2016-"))


_TEXT = _Rule("text", _encodable, nullable=True)
_FRACTION = _Rule("a fraction from 0 to 1", lambda value: _number(value, 0, 1))
_DAY, _YEAR = 86400.0, 366 * 86400.0
_RULES: dict[str, _Rule] = {
    "http_tokens": _one_of("optional", "required"),
    "role": _Rule(
        "a role name (letters, digits, `.`, `_`, `-`; at most 64)",
        lambda value: isinstance(value, str) and bool(_ROLE.fullmatch(value)),
        nullable=True,
    ),
    "user_data": _TEXT,
    "spot_termination": _TEXT,
    "latency": _seconds(0, 3600),
    "put_latency": _seconds(0, 3600),
    "latency_spread": _seconds(0, 3600),
    "tail_latency": _seconds(0, 3600),
    "tail_rate": _FRACTION,
    "throttle": _Rule("requests a second, over 0", lambda value: _number(value, 1e-6, 1e9), nullable=True),
    "throttle_burst": _whole(1, 10**9, nullable=True),
    "throttle_status": _whole(400, 599),
    "retry_after": _whole(0, 86400, nullable=True),
    "credential_life": _seconds(0.001, _YEAR),
    "rotation_lead": _seconds(0, _YEAR),
    "clock_offset": _seconds(-50 * _YEAR, 50 * _YEAR),
    "max_token_ttl": _seconds(0, _DAY),
    "put_status": _whole(200, 599, nullable=True),
    "get_status": _whole(200, 599, nullable=True),
    "fault": _one_of(*FAULTS, nullable=True),
    "fault_rate": _FRACTION,
    "fault_path": _TEXT,
    "keep_alive": _Rule("true or false", lambda value: isinstance(value, bool)),
    "extra_items": _Rule(
        "an object of paths below a version, such as meta-data/tags/instance/team, to text",
        lambda value: (
            isinstance(value, Mapping) and all(_item(key) and _encodable(text) for key, text in value.items())
        ),
    ),
    "hidden_items": _Rule(
        "a list of paths below a version, such as meta-data/eipv4",
        lambda value: isinstance(value, tuple) and all(_item(path) for path in value),
    ),
}


def _default(key: str) -> object:
    for setting in fields(Settings):
        if setting.name == key:
            return setting.default if setting.default is not MISSING else {}
    raise KeyError(key)


def _unknown(key: str) -> Problem:
    near = difflib.get_close_matches(key, _RULES, n=1)
    hint = f"unknown setting; did you mean {near[0]}?" if near else "unknown setting"
    return Problem(key, hint, "one of " + ", ".join(_RULES))


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
