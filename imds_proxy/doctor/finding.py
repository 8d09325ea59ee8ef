"""What the doctor found, and how it is shown; every text is escaped here, once.

Knows no check.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from imds_proxy.config_values import printable

State = Literal["ok", "warn", "bad", "unknown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact of this machine.

    `slug` names the check, `sentence` says what was found, `remedy` what to do about it (None: nothing).
    `bad` means that imds-proxy will not work here as configured, `warn` that some of it will not.
    """

    slug: str
    state: State
    sentence: str
    remedy: str | None = None


def as_text(findings: Sequence[Finding]) -> str:
    """A table: state, slug, sentence, and the remedy on a line below."""
    width = max((len(finding.slug) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<7}  {finding.slug:<{width}}  {printable(finding.sentence)}")
        if finding.remedy is not None:
            lines.append(f"{'':7}  {'':{width}}  -> {printable(finding.remedy)}")
    return "".join(line + "\n" for line in lines)


def as_json(findings: Sequence[Finding]) -> str:
    """One line of ASCII: `{"schema": 1, "findings": [{slug, state, sentence, remedy}]}`."""
    escaped = [
        {key: printable(value) if value is not None else None for key, value in asdict(finding).items()}
        for finding in findings
    ]
    return json.dumps({"schema": 1, "findings": escaped}) + "\n"
