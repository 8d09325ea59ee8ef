"""A small metadata service on loopback, with secrets in every place where the real one has some."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from imds_proxy.config import Address

TOKEN = "AQAEALxSecretTokenOfFiftySixCharactersABCDEFGHIJKLMNOP=="
ROLE = "billing-role"
MAC = "00:16:3e:0a:0b:0c"
SECRETS = {
    "key id": "STS.NUsecretKeyIdentifier",
    "key secret": "3FsecretKeySecretValue",
    "security token": "CAISsecretSecurityTokenValue",
    "user data": "password-of-the-database",
    "pkcs7": "MIIDsecretPkcs7Text",
    "public key": "AAAAB3NzaC1yc2Esecret",
    "token": TOKEN,
    "role": ROLE,
    "mac": MAC,
}
CREDENTIALS = f""" {{
  "AccessKeyId" : "{SECRETS["key id"]}",
  "AccessKeySecret" : "{SECRETS["key secret"]}",
  "Expiration" : "2026-01-01T06:00:00Z",
  "SecurityToken" : "{SECRETS["security token"]}",
  "LastUpdated" : "2026-01-01T00:00:00Z",
  "Code" : "Success"
}}"""
ALL = json.dumps({"public-keys": f"ssh-rsa {SECRETS['public key']} x@y", "ram": SECRETS["key secret"]})
PAGE = '<?xml version="1.0" encoding="iso-8859-1"?>\n<html><h1>%d - %s</h1></html>\n'
ITEMS = {
    "/": "2016-01-01\nlatest",
    "/latest/": "dynamic/\nmeta-data/\nuser-data",
    "/latest/meta-data/": "instance-id\nregion-id\nram/",
    "/latest/meta-data/instance-id": "i-bp1",
    "/latest/meta-data/region-id": "cn-hangzhou",
    "/latest/meta-data/mac": MAC,
    f"/latest/meta-data/network/interfaces/macs/{MAC.replace(':', '%3A')}/vswitch-id": "vsw-1",
    "/latest/meta-data/ram/security-credentials/": ROLE,
    f"/latest/meta-data/ram/security-credentials/{ROLE}": CREDENTIALS,
    "/latest/meta-data/all": ALL,
    "/latest/user-data": SECRETS["user data"],
    "/latest/dynamic/instance-identity/pkcs7": SECRETS["pkcs7"],
}


@dataclass
class Service:
    """How the service behaves, and what it was asked."""

    address: Address
    required: bool = True
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self, status: int, text: str, reason: str = "OK") -> None:
            body = text.encode()
            self.send_response(status, reason)
            self.send_header("Content-Length", str(len(body)))
            # What no service should do, and a redaction must survive.
            self.send_header("X-Echo", self.headers.get("X-aliyun-ecs-metadata-token", ""))
            self.send_header("Set-Cookie", "session=secretCookie")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def fail(self, status: int, reason: str) -> None:
            self.answer(status, PAGE % (status, reason) + f"<!-- {TOKEN} -->", reason)

        def do_PUT(self) -> None:
            state.requests.append(self.requestline)
            ttl = self.headers.get("X-aliyun-ecs-metadata-token-ttl-seconds", "")
            if self.headers.get("X-Forwarded-For"):
                self.fail(403, "Forbidden")
            elif ttl.isdigit() and 1 <= int(ttl) <= 21600:
                self.answer(200, TOKEN)
            else:
                self.fail(400, "Missing or Invalid Parameters")

        def do_GET(self) -> None:
            state.requests.append(self.requestline)
            token = self.headers.get("X-aliyun-ecs-metadata-token")
            if token not in (None, TOKEN):
                self.fail(401, "Unauthorized")
            elif token is None and state.required:
                self.fail(403, "Forbidden")
            elif self.path in ITEMS:
                self.answer(200, ITEMS[self.path])
            else:
                self.fail(404, "Not Found")

        def do_HEAD(self) -> None:
            self.do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = Service(Address("127.0.0.1", server.server_address[1]))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def secrets() -> dict[str, str]:
    return SECRETS
