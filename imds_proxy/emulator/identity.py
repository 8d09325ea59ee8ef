"""The instance identity document and its signature. Knows no HTTP, clock or setting.

The signature is a stand-in that nothing verifies.
"""

from __future__ import annotations

import base64
import hashlib
import json
from urllib.parse import parse_qs

from imds_proxy.emulator import items

_MEMBERS = {
    "zone-id": items.ZONE_ID,
    "serial-number": items.SERIAL_NUMBER,
    "instance-id": items.INSTANCE_ID,
    "region-id": items.REGION_ID,
    "private-ipv4": items.PRIVATE_IPV4,
    "owner-account-id": items.ACCOUNT_ID,
    "mac": items.MAC,
    "image-id": items.IMAGE_ID,
    "instance-type": items.INSTANCE_TYPE,
}
_LINE = 76


def document() -> bytes:
    """The identity document, JSON."""
    return json.dumps(_MEMBERS, separators=(",", ":")).encode()


def pkcs7(query: str) -> bytes:
    """Base64 in lines, of bytes that hold the document and the `audience` of the query (a nonce, mostly)."""
    audience = parse_qs(query, keep_blank_values=True).get("audience")
    members = _MEMBERS if audience is None else {**_MEMBERS, "audience": audience[0]}
    signed = json.dumps(members, separators=(",", ":")).encode()
    content = signed + hashlib.sha256(b"emulated signature" + signed).digest()
    text = base64.b64encode(b"\x30\x82" + len(content).to_bytes(2, "big") + content).decode()
    return "\n".join(text[at : at + _LINE] for at in range(0, len(text), _LINE)).encode()
