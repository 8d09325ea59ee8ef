"""The ECS OpenAPI as far as a cutover needs it, on loopback, for the provider's own SDK."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class EcsApi:
    """Instances by id (`HttpTokens` and so on), images by id (`ImdsSupport`), and what was called.

    `on_change` is told of each ModifyInstanceMetadataOptions; `failures` are error codes of calls to come, by
    action.
    """

    instances: dict[str, dict[str, str]]
    images: dict[str, str | None] = field(default_factory=lambda: {"img-2": "v2"})
    on_change: Callable[[str, str], None] = lambda instance, tokens: None
    failures: dict[str, list[str]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    endpoint: str = ""

    def changes(self) -> list[tuple[str, str]]:
        """Each instance and HttpTokens that were set, in their order."""
        modified = (
            parameters for action, parameters in self.calls if action == "ModifyInstanceMetadataOptions"
        )
        return [(one["InstanceId"], one["HttpTokens"]) for one in modified]

    def answer(self, action: str, asked: dict[str, str]) -> tuple[int, dict[str, Any]]:
        self.calls.append((action, asked))
        if self.failures.get(action):
            code = self.failures[action].pop(0)
            if code:
                return 400, {"Code": code, "Message": f"{code} it is", "RequestId": "r"}
        if action == "DescribeInstances":
            wanted = json.loads(asked["InstanceIds"])
            found = [self._instance(one) for one in wanted if one in self.instances]
            return 200, {"Instances": {"Instance": found}, "TotalCount": len(found), "RequestId": "r"}
        if action == "DescribeImages":
            image = asked["ImageId"]
            features = {"ImdsSupport": self.images[image]} if self.images.get(image) else {}
            images = [{"ImageId": image, "Features": features}] if image in self.images else []
            return 200, {"Images": {"Image": images}, "RequestId": "r"}
        if action == "ModifyInstanceMetadataOptions":
            if asked["InstanceId"] not in self.instances:
                return 404, {"Code": "InvalidInstanceId.NotFound", "Message": "no", "RequestId": "r"}
            self.instances[asked["InstanceId"]]["HttpTokens"] = asked["HttpTokens"]
            self.on_change(asked["InstanceId"], asked["HttpTokens"])
            return 200, {"RequestId": "r"}
        return 404, {"Code": "InvalidAction.NotFound", "Message": action, "RequestId": "r"}

    def _instance(self, name: str) -> dict[str, Any]:
        one = self.instances[name]
        return {
            "InstanceId": name,
            "ImageId": one.get("ImageId", "img-2"),
            "OSType": one.get("OSType", "linux"),
            "MetadataOptions": {
                "HttpTokens": one.get("HttpTokens", "optional"),
                "HttpEndpoint": one.get("HttpEndpoint", "enabled"),
            },
            "VpcAttributes": {"PrivateIpAddress": {"IpAddress": ["192.168.0.9"]}},
        }


@contextmanager
def serving_ecs(api: EcsApi) -> Iterator[EcsApi]:
    """Serves it; `endpoint` is set meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            query = parse_qs(urlsplit(self.path).query) | parse_qs(body)
            asked = {name: values[0] for name, values in query.items()}
            signed = "ACS3-HMAC-SHA256" in self.headers.get("Authorization", "")
            action = self.headers.get("x-acs-action") or asked.get("Action", "")
            status, answer = api.answer(action, asked) if signed else (403, {"Code": "Unsigned"})
            raw = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    api.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
