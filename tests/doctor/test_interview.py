"""What is asked of a service, and what of its answers is kept."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

from imds_proxy.config import Address
from imds_proxy.doctor.exchange import ServiceError
from imds_proxy.doctor.interview import MOST_REQUESTS, Interview, Question, interview


def test_the_answers_keep_form_and_headers_and_no_secret(service: Any, secrets: dict[str, str]) -> None:
    facts = interview(service.address, token_lapse=0)
    text = json.dumps(facts)
    assert [name for name, secret in secrets.items() if secret in text] == []
    by_slug = {answer["question"]: answer for answer in facts["answers"]}
    assert len(by_slug) == len(facts["answers"])

    assert by_slug["leaf-without-token"]["status_line"] == "HTTP/1.1 403 Forbidden"
    token = by_slug["token"]["body"]
    assert (token["length"], token["trailing_newline"]) == (56, False)
    assert token["text"] == "<removed 56 bytes>"
    assert by_slug["token-ttl-zero"]["status_line"].startswith("HTTP/1.1 400")
    assert by_slug["token-forwarded"]["status_line"].startswith("HTTP/1.1 403")

    assert by_slug["root"]["body"]["text"] == "2016-01-01\nlatest"
    assert by_slug["leaf"]["body"]["text"] == "cn-hangzhou"
    missing = by_slug["missing"]["body"]["text"]
    assert missing.startswith("<?xml")
    assert "404 - Not Found" in missing

    credentials = by_slug["credentials"]["body"]
    assert credentials["first_line"] == {"length": 2, "characters": " {", "leading_blanks": 1}
    assert credentials["json_keys"][0] == "AccessKeyId"
    assert by_slug["credentials"]["request"]["target"].endswith("/ROLE")
    headers = dict(map(tuple, by_slug["leaf"]["headers"]))
    assert headers["Content-Length"] == "11"
    assert headers["X-Echo"] == "<removed 56 bytes>"
    assert by_slug["keep-alive-2"]["status_line"] == "HTTP/1.1 200 OK"
    assert by_slug["head"]["end"] == "no-body"
    assert facts["burst"] is None


def test_the_mode_of_the_service_is_told(service: Any) -> None:
    service.required = False
    assert interview(service.address, token_lapse=0)["http_tokens"] == "optional"


def test_the_number_of_requests_is_bounded_with_every_option(service: Any) -> None:
    facts = interview(service.address, token_lapse=0, ipv6=service.address)
    assert len(facts["answers"]) <= MOST_REQUESTS
    assert len(service.requests) <= MOST_REQUESTS
    assert "ipv6" in {answer["question"] for answer in facts["answers"]}


def test_no_interview_is_longer_than_promised(service: Any) -> None:
    talk = Interview(service.address)
    for _ in range(MOST_REQUESTS):
        talk.ask(Question("x"))
    with pytest.raises(RuntimeError):
        talk.ask(Question("x"))
    assert len(service.requests) == MOST_REQUESTS


def test_a_burst_is_sent_only_when_asked_for_and_is_bounded(service: Any) -> None:
    facts = interview(service.address, token_lapse=0, burst=True)
    assert 0 < sum(facts["burst"]["statuses"].values()) <= 200
    assert set(facts["burst"]["statuses"]) == {"200"}


def test_a_service_that_closes_every_connection_is_an_error_for_each_question() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopped = threading.Event()

        def close_all() -> None:
            while not stopped.is_set():
                peer, _ = listener.accept()
                peer.close()

        thread = threading.Thread(target=close_all)
        thread.start()
        address = Address("127.0.0.1", listener.getsockname()[1])
        try:
            facts = interview(address, token_lapse=0)
        finally:
            stopped.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()
    assert facts["http_tokens"] is None
    assert all("error" in answer for answer in facts["answers"])


def test_nothing_listening_is_one_error() -> None:
    with pytest.raises(ServiceError):
        interview(Address("127.0.0.1", 9))
