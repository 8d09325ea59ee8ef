"""One GET to the API server: over TLS that is checked, with the token of now."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from imds_proxy.kubernetes.client import ApiError, ApiServer
from kube_api import KubeApi, make_credentials

LIST = "/api/v1/pods?limit=10"


async def _whole(server: ApiServer, target: str = LIST, silence: float = 5.0) -> bytes:
    async with server.get(target, silence) as pieces:
        return b"".join([piece async for piece in pieces])


def fetched(api: KubeApi, credentials: Path | None = None) -> bytes:
    return asyncio.run(_whole(ApiServer(api.host, api.port, credentials or api.credentials)))


def test_a_200_comes_whole(api: KubeApi) -> None:
    assert b'"kind": "PodList"' in fetched(api)


def test_the_token_is_read_anew_each_time(api: KubeApi) -> None:
    fetched(api)
    (api.credentials / "token").write_text("an-older-one")
    with pytest.raises(ApiError, match="answered 401") as refused:
        fetched(api)
    assert refused.value.status == 401


@pytest.mark.parametrize("status", [403, 410, 301, 500])
def test_anything_but_200_is_an_error_with_its_status(api: KubeApi, status: int) -> None:
    api.fault = (status, b"{}")
    with pytest.raises(ApiError) as refused:
        fetched(api)
    assert refused.value.status == status


def test_a_server_that_another_authority_vouches_for_is_not_asked(api: KubeApi, tmp_path: Path) -> None:
    make_credentials(tmp_path / "other", api.host)
    with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
        fetched(api, tmp_path / "other")
    assert api.targets == []


def test_a_certificate_of_another_name_is_refused(api: KubeApi) -> None:
    server = ApiServer("localhost", api.port, api.credentials)
    with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(_whole(server))


@pytest.mark.parametrize("text", ["", "two words", "a\x01b"])
def test_what_is_no_token_is_not_sent(api: KubeApi, text: str) -> None:
    (api.credentials / "token").write_text(text)
    with pytest.raises(ApiError, match="holds no token"):
        fetched(api)


def test_without_credentials_or_server_it_says_so(api: KubeApi, tmp_path: Path) -> None:
    with pytest.raises(ApiError, match="no credentials of a service account in /nowhere"):
        fetched(api, Path("/nowhere"))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ApiError, match="cannot be reached"):
        asyncio.run(_whole(ApiServer("127.0.0.1", port, api.credentials)))


def test_silence_is_an_error(api: KubeApi) -> None:
    server = ApiServer(api.host, api.port, api.credentials)
    with pytest.raises(ApiError, match="silent for too long"):
        asyncio.run(_whole(server, "/api/v1/pods?watch=true&resourceVersion=1", silence=0.2))
