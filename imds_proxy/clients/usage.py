"""What is seen of a caller beside its files: the kinds of calls that it makes, and what makes them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from imds_proxy.protocol.session import Session


@dataclass(frozen=True, slots=True)
class Call:
    """One kind of request: its User-Agent (None: it has none), canonical path, session, and for a fallback
    why the call with a token had failed (`token:` or `hardened:`, then a slug, `status-N` or `left`)."""

    agent: str | None
    path: str
    session: Session
    cause: str = ""

    @property
    def lists_roles(self) -> bool:
        """Whether it asks for the list of roles."""
        return path_shape(self.path) in ("roles", "Ram/roles")


@dataclass(frozen=True, slots=True)
class Usage:
    """What is known of a caller beside its files: its kinds of calls, executable, script, and the script of
    the shell that started it."""

    calls: tuple[Call, ...]
    executable: str | None = None
    script: str | None = None
    shell_script: str | None = None


def path_shape(path: str) -> str | None:
    """How the catalogue names a canonical path in `requests`; None for what is no meta-data."""
    segments = path.strip("/").split("/")[1:]
    if not segments or segments[0].lower() != "meta-data":
        return None
    if [one.lower() for one in segments[1:3]] != ["ram", "security-credentials"]:
        return "item"
    spelt = "Ram/" if segments[1] == "Ram" else ""
    return f"{spelt}role" if len(segments) > 3 else f"{spelt}roles"
