"""What a script is to run in place of a plain GET: two lines of curl. Pure."""

from __future__ import annotations

import shlex

_SERVICE = "http://100.100.100.200"
_SECONDS = 60


def curl_lines(path: str) -> tuple[str, str]:
    """The two lines that read a path in hardened mode, ready for a shell."""
    url = shlex.quote(f"{_SERVICE}{path}")
    put = (
        f"token=$(curl -sSf -X PUT -H 'X-aliyun-ecs-metadata-token-ttl-seconds: {_SECONDS}' "
        f"{_SERVICE}/latest/api/token)"
    )
    return put, f'curl -sSf -H "X-aliyun-ecs-metadata-token: $token" {url}'
