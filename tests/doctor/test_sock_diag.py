"""The kernel's answer about one connection."""

from __future__ import annotations

import socket

import pytest

from imds_proxy.doctor import sock_diag


def test_this_kernel_names_the_owner_of_a_connection() -> None:
    finding = sock_diag.answers()
    assert finding.state == "ok", finding.sentence


def test_a_wrong_answer_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sock_diag, "_ask", lambda client: (4242, 1, True))
    assert sock_diag.answers().state == "bad"


def test_no_answer_is_bad_with_the_kernels_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(client: socket.socket) -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(sock_diag, "_ask", refuse)
    assert "Protocol not supported" in sock_diag.answers().sentence
