"""What a developer is to do about a client, as sentences. Pure.

Every sentence rests on something that was seen; what is not known is said to be not known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from imds_proxy.clients.catalogue import Catalogue, Tool
from imds_proxy.clients.evidence import Evidence
from imds_proxy.clients.findings import Finding
from imds_proxy.clients.naming import Named, Naming, is_command, name_clients
from imds_proxy.clients.replacement import curl_lines
from imds_proxy.clients.switches import proxy_findings, switch_findings
from imds_proxy.clients.usage import Call, Usage, path_shape
from imds_proxy.errors import REFUSALS
from imds_proxy.protocol.session import Session

_REFUSED = {refusal.slug: refusal.sentence for refusal in REFUSALS}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a caller's client, and what to do. `client` is None where it is not known.
    `advice` is what to change, or that nothing is, a line each; `fix` is the same without places, to group
    by, None where nothing is to be changed. `credentials`: whether it reads any."""

    client: Named | None
    findings: tuple[Finding, ...]
    advice: str | None
    fix: str | None
    credentials: bool


def judge(known: Catalogue, usage: Usage, evidence: Evidence) -> Verdict:
    """The verdict on a caller."""
    naming = name_clients(known, usage, evidence)
    findings = [
        *_of_clients(naming, usage, evidence),
        *_of_choices(naming),
        *_of_unnamed(naming, usage, evidence),
        *switch_findings(evidence, [one for one, _ in naming.sent]),
        *proxy_findings(evidence, known),
    ]
    credentials = any(_reads_credentials(call) for call in usage.calls)
    if not credentials and any(call.session is not Session.HARDENED for call in usage.calls):
        findings.append(Finding("probe", "it reads no credentials: a probe, or a reader of plain facts"))
    change = [one for one in findings if one.fix is not None or one.slug == "fallback"]
    return Verdict(
        client=_client(naming),
        findings=tuple(findings),
        advice="\n".join(dict.fromkeys(one.sentence for one in change)) or None,
        fix="; ".join(dict.fromkeys(one.fix for one in change if one.fix)) or None,
        credentials=credentials,
    )


def _client(naming: Naming) -> Named | None:
    """The one to name: the most telling that is certain, else a module of which only the part is not."""
    if naming.sent:
        return naming.sent[0][0]
    whole = {replace(one, tool=None) for _, senders in naming.choices for one in senders}
    return whole.pop() if len(whole) == 1 else None


def _of_clients(naming: Naming, usage: Usage, evidence: Evidence) -> Iterator[Finding]:
    for client, calls in naming.sent:
        legacy = [call for call in calls if call.session is Session.LEGACY]
        fallen = [call for call in calls if call.session is Session.FALLBACK]
        if client.tool is None:
            if legacy:
                yield _own_code(client, legacy[0], usage, evidence)
            elif fallen:
                yield _fallback(client, fallen[0])
        elif (client.tool.kind == "boot" and _outdated(client)) or (legacy and not _speaks_hardened(client)):
            yield _outdated_finding(client, evidence)
        elif legacy or fallen:
            yield _fallback(client, (fallen or legacy)[0])


def _of_choices(naming: Naming) -> Iterator[Finding]:
    fallen = next((call for call, _ in naming.choices if call.session is Session.FALLBACK), None)
    if fallen is not None:
        yield _fallback(None, fallen)
    some = [one for call, senders in naming.choices if call.session is Session.LEGACY for one in senders]
    if some:
        each = ", or ".join(_outdated_finding(one, Evidence()).sentence for one in dict.fromkeys(some))
        yield Finding(
            "choices",
            f"one of these sent it, and they send the same: {each}",
            f"see which calls: {' or '.join(dict.fromkeys(one.name for one in some))}",
        )


def _of_unnamed(naming: Naming, usage: Usage, evidence: Evidence) -> Iterator[Finding]:
    for call in naming.unnamed[:1]:
        if call.session is Session.FALLBACK:
            yield _fallback(None, call)
        elif call.session is Session.LEGACY:
            who = usage.script or usage.shell_script or usage.executable or "the caller"
            why = f" ({evidence.missing})" if evidence.missing else ""
            yield Finding(
                "unknown",
                f"what in {who} sends it is not known{why}: it has to PUT /latest/api/token first and send "
                f"the token with its GET of {call.path}",
                "find the client that sends plain GETs",
            )


def _own_code(client: Named, call: Call, usage: Usage, evidence: Evidence) -> Finding:
    where = f" in {client.where}" if client.where and client.where != usage.executable else ""
    if is_command(client, usage):
        first, second = curl_lines(call.path)
        return Finding(
            "script",
            f"{_name(client)}{where}: fetch a token first and send it with the call:\n{first}\n{second}",
            f"fetch a token in scripts that call {client.name}",
        )
    doubt = f" (or a library: {evidence.missing})" if evidence.missing else ""
    return Finding(
        "own-code",
        f"code{where} that uses {_name(client)}{doubt}: PUT /latest/api/token first and send the token with "
        f"the GET of {call.path}, as here:\n" + "\n".join(curl_lines(call.path)),
        f"fetch a token in code that uses {client.name}",
    )


def _outdated(client: Named) -> bool:
    tool = client.tool
    return tool is not None and (
        tool.status == "v1_only"
        or (client.release is not None and tool.upgrade_to is not None and client.release < tool.upgrade_to)
    )


def _speaks_hardened(client: Named) -> bool:
    """Whether it is known to speak hardened mode unasked."""
    for one in (client, client.through):
        if one is not None and one.tool is not None and one.release is not None:
            return one.tool.default_since is not None and one.release >= one.tool.default_since
    return False


def _outdated_finding(client: Named, evidence: Evidence) -> Finding:
    tool = client.tool
    if tool is None:
        raise AssertionError("only tools of the catalogue are outdated")
    part = f", {tool.part}" if tool.part else ""
    who = f"{_name(client)}{_where(client)}{part}"
    if tool.status == "unknown" or (tool.upgrade_to is None and tool.instead is None):
        return Finding("not-known", f"{who}: {tool.note}", f"{tool.name}: {tool.note}")
    if tool.upgrade_to is None:
        return Finding(
            "replace",
            f"{who}: no release speaks hardened mode here: {tool.instead}",
            f"{tool.name}: {tool.instead}",
        )
    switch = _switch(tool, evidence)
    todo = f"upgrade to >= {tool.upgrade_to}{switch}"
    notes = [text for text in (tool.note, tool.disable_v1.note if tool.disable_v1 else None) if text]
    if tool.opt_in and tool.supports_since and client.release and client.release >= tool.supports_since:
        notes.insert(0, f"this release speaks it when told to: {tool.opt_in}")
    more = f" ({'; '.join(notes)})" if notes else ""
    return Finding("upgrade", f"{who}: {todo}{more}", f"upgrade {tool.name} to >= {tool.upgrade_to}{switch}")


def _switch(tool: Tool, evidence: Evidence) -> str:
    """What is to be set beside the upgrade: a newer release alone still falls back."""
    disable = tool.disable_v1
    if disable is None or (disable.env is None and disable.param is None):
        return ""
    if disable.env is None:
        return f" and set {disable.param}"
    if any(one.name == disable.env and one.value == "true" for one in evidence.settings):
        return f" (keep {disable.env}=true)"
    return f" and set {disable.env}=true"


def _fallback(client: Named | None, call: Call) -> Finding:
    tool = client.tool if client is not None else None
    who = f"{_name(client)}{_where(client)}: " if client is not None else ""
    if call.session is Session.FALLBACK:
        why = f"its {_cause(call.cause)}"
    else:
        why = "it asks for a token first, and why it went on without one was not seen"
    sentence = f"{who}needs no code change; {why}"
    release = client.release if client is not None else None
    if tool and release and tool.repeats_untokened_since and release >= tool.repeats_untokened_since:
        sentence += "; this release repeats every refused call without its token"
    if tool is not None and tool.disable_v1 is not None and tool.disable_v1.env is not None:
        sentence += f"; {tool.disable_v1.env}=true stops that"
    return Finding("fallback", sentence)


def _cause(cause: str) -> str:
    session, _, code = cause.rpartition(":")
    what = {"token": "token PUT", "hardened": "GET with a token"}.get(session, "call for or with a token")
    if code == "left":
        return f"{what} failed because it did not wait for the answer"
    if code == "status-404":
        return f"{what} failed because the service answered 404 (for credentials: no role is attached)"
    if code.startswith("status-"):
        return f"{what} failed because the service answered {code.removeprefix('status-')}"
    if code in _REFUSED:
        return f"{what} failed because it was refused: {_REFUSED[code].rstrip('.')}"
    return f"{what} failed (why was not seen)"


def _name(client: Named) -> str:
    if client.version:
        return f"{client.name} {client.version}"
    if client.tool is None:
        return client.name
    held = client.through
    inside = f"; it holds {held.name} {held.version}" if held and held.version else ""
    return f"{client.name} (version not found{inside})"


def _where(client: Named) -> str:
    return f" in {client.where}" if client.where else ""


def _reads_credentials(call: Call) -> bool:
    return path_shape(call.path) in ("role", "roles", "Ram/role", "Ram/roles") or call.path.lower().rstrip(
        "/"
    ).endswith("/meta-data/all")
