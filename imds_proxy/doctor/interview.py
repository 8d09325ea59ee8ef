"""Asks a metadata service what nobody has written down (PROTOCOL.md, "Biggest unknowns").

Bounded: at most 40 requests, 1 s and 64 KiB each. Knows no file; what it returns holds no secret.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from imds_proxy.config import Address
from imds_proxy.doctor.exchange import Answer, Connection, ServiceError
from imds_proxy.doctor.redact import body_as_facts, headers_as_facts, scrub
from imds_proxy.protocol.profile import ALIBABA

MOST_REQUESTS = 40
_BURST = 200
_TOKEN_HEADER = ALIBABA.token_header.decode()
_TTL_HEADER = ALIBABA.ttl_header.decode()
_TOKEN_PATH = ALIBABA.token_path
_LEAF = "/latest/meta-data/region-id"
_ROLES = "/latest/meta-data/ram/security-credentials"
_DYNAMIC = "/latest/dynamic/instance-identity"
_ROLE = re.compile(r"[A-Za-z0-9._@+-]{1,128}")
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One request. `shown` is the target as the file has it; a `secret` item's text is never kept."""

    slug: str
    target: str = _LEAF
    method: str = "GET"
    headers: Headers = ()
    version: str = "1.1"
    secret: bool = False
    shown: str | None = None


class Interview:
    """The questions asked so far and what came back."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._answers: list[tuple[Question, Answer | str]] = []
        self._secrets: list[str] = []

    def ask(self, question: Question, connection: Connection | None = None) -> Answer | None:
        """The answer, None where there was none; on a connection of its own unless one is given."""
        if len(self._answers) >= MOST_REQUESTS:
            raise RuntimeError("the interview is longer than it promises to be")
        try:
            if connection is not None:
                answer = self._send(question, connection)
            else:
                with Connection(self.address) as own:
                    answer = self._send(question, own)
        except ServiceError as error:
            self._answers.append((question, str(error)))
            return None
        self._answers.append((question, answer))
        return answer

    def token(self, slug: str, headers: Headers, target: str = _TOKEN_PATH) -> str | None:
        """A token, remembered as a secret wherever a PUT gave one."""
        answer = self.ask(Question(slug, target, "PUT", headers, secret=True))
        if answer is None or answer.status != 200:
            return None
        token = answer.payload.decode("latin-1").strip()
        self.keep_out(token)
        return token if token.isascii() and token.isprintable() and token else None

    def keep_out(self, secret: str) -> None:
        """Keeps a text out of the facts, wherever the service repeats it."""
        self._secrets.append(secret)

    def note_failure(self, question: Question, reason: str) -> None:
        """Records a question that could not be asked."""
        self._answers.append((question, reason))

    def facts(self) -> list[dict[str, Any]]:
        """Every question with its answer; without secrets, those learnt late included."""
        return [self._fact(question, answer) for question, answer in self._answers]

    def _send(self, question: Question, connection: Connection) -> Answer:
        return connection.ask(question.method, question.target, question.headers, version=question.version)

    def _fact(self, question: Question, answer: Answer | str) -> dict[str, Any]:
        request = {
            "method": question.method,
            "target": question.shown or question.target,
            "version": question.version,
            "headers": [[name, scrub(value, self._secrets)] for name, value in question.headers],
        }
        if isinstance(answer, str):
            return {"question": question.slug, "request": request, "error": answer}
        return {
            "question": question.slug,
            "request": request,
            "status_line": scrub(answer.status_line, self._secrets)[:200],
            "headers": headers_as_facts(answer.headers, self._secrets),
            "end": answer.end,
            "seconds": round(answer.seconds, 3),
            "body": body_as_facts(answer.payload, answer.status, self._secrets, secret=question.secret),
        }


def interview(
    address: Address, *, token_lapse: float = 1.5, ipv6: Address | None = None, burst: bool = False
) -> dict[str, Any]:
    """All questions to the service at `address`; facts as JSON values.

    `token_lapse` is how many seconds a token of 1 s is left before it is tried again. `ipv6` is asked one
    more question; `burst` adds up to 200 reads within 1 s, which may get this instance throttled. Raises
    ServiceError where the service cannot be reached.
    """
    with Connection(address):
        pass
    talk = Interview(address)
    legacy = talk.ask(Question("leaf-without-token"))
    token, short, short_since = _about_tokens(talk)
    key: Headers = ((_TOKEN_HEADER, token),) if token else ()
    _about_paths(talk, key)
    _about_secrets(talk, key)
    _about_messages(talk, key)
    if ipv6 is not None:
        _about_ipv6(talk, ipv6, key)
    if short:
        time.sleep(max(0.0, short_since + token_lapse - time.monotonic()))
        talk.ask(Question("expired-token", headers=((_TOKEN_HEADER, short),)))
    modes = {200: "optional", 403: "required"}
    return {
        "schema": 1,
        "service": str(address),
        "http_tokens": modes.get(legacy.status) if legacy else None,
        "answers": talk.facts(),
        "burst": _burst(address, key) if burst else None,
    }


def _about_tokens(talk: Interview) -> tuple[str | None, str | None, float]:
    """A usable token, one of 1 s, and since when that one lives."""
    token = talk.token("token", ((_TTL_HEADER, "120"),))
    talk.token("token-again", ((_TTL_HEADER, "120"),))
    for slug, ttl in (("zero", "0"), ("word", "abc"), ("too-long", "21601")):
        talk.token(f"token-ttl-{slug}", ((_TTL_HEADER, ttl),))
    talk.token("token-ttl-missing", ())
    talk.token("token-forwarded", ((_TTL_HEADER, "60"), ("X-Forwarded-For", "127.0.0.1")))
    talk.token("token-dated-path", ((_TTL_HEADER, "60"),), "/2016-01-01/api/token")
    talk.ask(Question("token-path-get", _TOKEN_PATH, secret=True))
    short = talk.token("token-short", ((_TTL_HEADER, "1"),))
    return token, short, time.monotonic()


def _about_paths(talk: Interview, key: Headers) -> None:
    for slug, target in (
        ("root", "/"),
        ("version", "/latest"),
        ("version-slash", "/latest/"),
        ("directory", "/latest/meta-data"),
        ("directory-slash", "/latest/meta-data/"),
        ("leaf", _LEAF),
        ("leaf-slash", _LEAF + "/"),
        ("missing", "/latest/meta-data/no-such-item"),
        ("double-slash", "/" + _LEAF),
        ("upper-case", "/latest/META-DATA/REGION-ID"),
        ("maintenance", "/latest/maintenance/active-system-events"),
    ):
        talk.ask(Question(slug, target, headers=key))
    answer = talk.ask(Question("mac", "/latest/meta-data/mac", headers=key, secret=True))
    mac = answer.payload.decode("latin-1").strip() if answer and answer.status == 200 else ""
    if _MAC.fullmatch(mac):
        talk.keep_out(mac)
        stem, leaf = "/latest/meta-data/network/interfaces/macs/", "/vswitch-id"
        target = stem + mac.replace(":", "%3A") + leaf
        talk.keep_out(mac.replace(":", "%3A"))
        shown = f"{stem}MAC%3A...{leaf}"
        talk.ask(Question("encoded-mac", target, headers=key, secret=True, shown=shown))


def _about_secrets(talk: Interview, key: Headers) -> None:
    """Items of which only the form is of interest."""
    answer = talk.ask(Question("roles", _ROLES + "/", headers=key, secret=True))
    talk.ask(Question("roles-without-slash", _ROLES, headers=key, secret=True))
    role = answer.payload.decode("latin-1").strip() if answer and answer.status == 200 else ""
    if _ROLE.fullmatch(role) and role not in {".", ".."}:
        talk.keep_out(role)
        target, shown = f"{_ROLES}/{role}", f"{_ROLES}/ROLE"
        talk.ask(Question("credentials", target, headers=key, secret=True, shown=shown))
    for slug, target in (
        ("all", "/latest/meta-data/all"),
        ("user-data", "/latest/user-data"),
        ("identity-pkcs7", f"{_DYNAMIC}/pkcs7"),
        ("identity-signature", f"{_DYNAMIC}/signature"),
    ):
        talk.ask(Question(slug, target, headers=key, secret=True))


def _about_messages(talk: Interview, key: Headers) -> None:
    talk.ask(Question("head", method="HEAD", headers=key))
    talk.ask(Question("options", method="OPTIONS", headers=key))
    talk.ask(Question("http-1.0", headers=key, version="1.0"))
    talk.ask(Question("forwarded", headers=(*key, ("X-Forwarded-For", "127.0.0.1"))))
    talk.ask(Question("made-up-token", headers=((_TOKEN_HEADER, "aaa"),)))
    _same_connection(talk, (Question("keep-alive-1", headers=key), Question("keep-alive-2", headers=key)))


def _same_connection(talk: Interview, questions: Sequence[Question]) -> None:
    try:
        with Connection(talk.address) as connection:
            for question in questions:
                if talk.ask(question, connection) is None:
                    return
    except ServiceError as error:
        talk.note_failure(questions[0], str(error))


def _about_ipv6(talk: Interview, ipv6: Address, key: Headers) -> None:
    question = Question("ipv6", headers=key)
    try:
        with Connection(ipv6) as connection:
            talk.ask(question, connection)
    except ServiceError as error:
        talk.note_failure(question, str(error))


def _burst(address: Address, key: Headers) -> dict[str, Any]:
    """How many reads within 1 s were answered how, and what asked to slow down."""
    statuses: Counter[str] = Counter()
    retry_after: list[str] = []
    end = time.monotonic() + 1.0
    while statuses.total() < _BURST and time.monotonic() < end:
        try:
            with Connection(address) as connection:
                answer = connection.ask("GET", _LEAF, key)
        except ServiceError as error:
            statuses[str(error)] += 1
            continue
        statuses[str(answer.status)] += 1
        value = answer.header("retry-after")
        if value is not None and len(retry_after) < 5:
            retry_after.append(scrub(value, [value for _, value in key])[:64])
    return {"statuses": dict(statuses), "retry_after": retry_after}
