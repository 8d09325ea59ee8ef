import json

import pytest

from imds_proxy.emulator.answers import Answer
from imds_proxy.emulator.metadata import TOKEN_PATH, MetadataService, Request
from imds_proxy.emulator.settings import Settings, SettingsError

CREDENTIALS = "/latest/meta-data/ram/security-credentials/"


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Service:
    """A service on a clock that tests move."""

    def __init__(self, **settings: object) -> None:
        self.clock = Clock()
        self.it = MetadataService(wall=self.clock, steady=self.clock)
        self.it.patch(settings)

    def get(self, path: str, token: str = "", query: str = "") -> Answer:
        return self._ask(Request("GET", path, query, token))

    def put(self, ttl: str | None = "60", forwarded: bool = False) -> Answer:
        return self._ask(Request("PUT", TOKEN_PATH, ttl=ttl, forwarded=forwarded))

    def token(self, ttl: str = "60") -> str:
        return self.put(ttl).body.decode()

    def _ask(self, request: Request) -> Answer:
        self.it.receive(request)
        return self.it.answer(request)


@pytest.mark.parametrize("version", ["latest", "2016-01-01"])
@pytest.mark.parametrize(
    "path",
    ["meta-data/instance-id", "meta-data/", "meta-data", "user-data", "dynamic/instance-identity/document"],
)
def test_items_are_there_under_both_versions(version: str, path: str) -> None:
    assert Service().get(f"/{version}/{path}").status == 200


def test_the_root_of_a_version_lists_what_can_be_read() -> None:
    assert Service().get("/latest/").body == b"dynamic/\nglobal-config/\nmaintenance/\nmeta-data/\nuser-data"


@pytest.mark.parametrize(
    "path",
    [
        "/latest/vendor-data",
        "/latest/meta-data/instance/spot/termination-time",
        "/latest/meta-data/nope",
        "/1.0/",
    ],
)
def test_what_is_not_there_is_the_404_page_and_no_refusal(path: str) -> None:
    service = Service()
    answer = service.get(path)
    assert answer.status == 404 and b"<h1>404 - Not Found</h1>" in answer.body
    assert service.it.counters.read().refused == 0


def test_the_role_is_listed_bare_in_any_case_of_ram() -> None:
    service = Service()
    for path in (CREDENTIALS, CREDENTIALS[:-1], CREDENTIALS.replace("ram", "Ram")):
        assert service.get(path).body == b"demo-role"


def test_without_a_role_there_is_no_ram_at_all() -> None:
    service = Service(role=None)
    assert service.get(CREDENTIALS).status == 404
    assert service.get(f"{CREDENTIALS}demo-role").status == 404
    assert b"ram/" not in service.get("/latest/meta-data/").body


def test_a_wrong_role_name_is_not_found() -> None:
    assert Service().get(f"{CREDENTIALS}other").status == 404


def test_credentials_rotate_with_the_clock_and_its_offset() -> None:
    service = Service()
    first = json.loads(service.get(f"{CREDENTIALS}demo-role").body)
    service.it.patch({"clock_offset": 19800})
    second = json.loads(service.get(f"{CREDENTIALS}demo-role").body)
    assert first["AccessKeyId"] != second["AccessKeyId"] and first["Expiration"] < second["Expiration"]


def test_all_is_the_whole_tree_as_json_with_crlf_between_values() -> None:
    everything = json.loads(Service().get("/latest/meta-data/all").body)
    assert everything["dns-conf"]["nameservers"] == "100.100.2.136\r\n100.100.2.138"
    assert len(everything["network"]["interfaces"]["macs"]) == 2
    assert everything["ram"]["security-credentials"]["demo-role"]["Code"] == "Success"
    assert "all" not in everything


def test_the_signature_depends_on_the_query() -> None:
    service = Service()
    path = "/latest/dynamic/instance-identity/pkcs7"
    assert service.get(path, query="audience=a").body != service.get(path, query="audience=b").body


def test_settings_decide_user_data_spot_termination_and_extra_and_hidden_items() -> None:
    service = Service(
        user_data="#!/bin/sh",
        spot_termination="2020-04-07T17:03:00Z",
        extra_items={
            "meta-data/tags/instance/team": "x",
            "meta-data/mac/eth1": "y",
            "meta-data/disks": "leaf",
        },
        hidden_items=["meta-data/eipv4", "meta-data/public-keys", "meta-data/all"],
    )
    assert service.get("/latest/user-data").body == b"#!/bin/sh"
    assert service.get("/latest/meta-data/instance/spot/termination-time").body == b"2020-04-07T17:03:00Z"
    assert service.get("/latest/meta-data/tags/instance/team").body == b"x"
    assert service.get("/latest/meta-data/mac/").body == b"eth1"
    assert service.get("/latest/meta-data/disks").body == b"leaf"
    for hidden in ("eipv4", "public-keys/", "public-keys/0/openssh-key", "all"):
        assert service.get(f"/latest/meta-data/{hidden}").status == 404
    service.it.patch({"hidden_items": []})
    assert "eth1" in json.loads(service.get("/latest/meta-data/all").body)["mac"]


def test_user_data_may_be_any_bytes() -> None:
    raw = bytes(range(256))
    assert Service(user_data=raw.decode("utf-8", "surrogateescape")).get("/latest/user-data").body == raw


@pytest.mark.parametrize(
    ("ttl", "status"), [("1", 200), ("21600", 200), ("0", 400), ("21601", 400), (None, 400)]
)
def test_a_token_needs_a_ttl_in_range(ttl: str | None, status: int) -> None:
    assert Service().put(ttl).status == status


def test_a_forwarded_token_request_is_refused_before_its_ttl_is_looked_at() -> None:
    service = Service()
    assert service.put(ttl=None, forwarded=True).status == 403
    assert service.it.counters.read().refused == 1


def test_a_read_of_the_token_path_is_405_and_so_is_a_write_elsewhere() -> None:
    service = Service()
    answer = service.get(TOKEN_PATH)
    assert (answer.status, answer.headers) == (405, ("Allow: PUT",))
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "get"):
        assert service.it.answer(Request(method, "/latest/meta-data/")).status == 405
    assert service.it.answer(Request("PUT", "/2016-01-01/api/token", ttl="60")).status == 405


@pytest.mark.parametrize("mode", ["optional", "required"])
def test_a_token_is_served_while_it_lives_and_401_after_in_both_modes(mode: str) -> None:
    service = Service(http_tokens=mode)
    token = service.token("60")
    assert service.get("/latest/meta-data/mac", token).status == 200
    assert service.get("/latest/meta-data/mac", "made-up").status == 401
    service.clock.now += 60
    assert service.get("/latest/meta-data/mac", token).status == 401


def test_without_a_token_optional_serves_and_required_refuses() -> None:
    service = Service()
    assert service.get("/latest/meta-data/mac").status == 200
    service.it.patch({"http_tokens": "required"})
    assert service.get("/latest/meta-data/mac").status == 403
    assert service.get("/latest/meta-data/nope").status == 403


def test_a_shorter_life_than_promised_can_be_set() -> None:
    service = Service(max_token_ttl=5)
    token = service.token("21600")
    service.clock.now += 5
    assert service.get("/latest/meta-data/mac", token).status == 401


def test_requests_are_counted_by_kind_and_path() -> None:
    service = Service()
    token = service.token()
    service.get("/latest/meta-data/mac")
    service.get("/latest/meta-data/mac", token)
    service.get("/latest/meta-data/mac", "bad")
    service.get("//latest/Nope", query="a=1")
    service.get(TOKEN_PATH)
    counts = service.it.counters.read()
    assert (counts.token_puts, counts.v1_gets, counts.v2_gets, counts.refused) == (1, 2, 2, 2)
    assert counts.by_path == {"/latest/meta-data/mac": 3, "//latest/Nope": 1}


@pytest.mark.parametrize("status", [429, 503])
def test_over_the_rate_every_request_is_throttled_as_set(status: int) -> None:
    service = Service(throttle=2, throttle_status=status, retry_after=3)
    assert [service.get("/latest/").status for _ in range(3)] == [200, 200, status]
    answer = service.put()
    assert (answer.status, answer.headers) == (status, ("Retry-After: 3",))
    counts = service.it.counters.read()
    assert (counts.throttled, counts.refused) == (2, 0)
    service.clock.now += 1
    assert service.get("/latest/").status == 200


def test_a_status_can_be_demanded_of_every_put_or_get() -> None:
    service = Service(put_status=404, get_status=500)
    assert (service.put().status, service.get("/latest/").status) == (404, 500)


def test_delays_add_up_for_a_token_request() -> None:
    service = MetadataService(Settings(latency=0.1, put_latency=0.2))
    assert service.receive(Request("GET", "/latest/")).delay == 0.1
    assert service.receive(Request("PUT", TOKEN_PATH)).delay == pytest.approx(0.3)


def test_a_fault_hits_data_requests_in_an_even_fraction() -> None:
    service = MetadataService(Settings(fault="reset", fault_rate=0.25))
    faults = [service.receive(Request("GET", "/latest/")).fault for _ in range(8)]
    assert faults == [None, None, None, "reset"] * 2
    assert service.receive(Request("PUT", TOKEN_PATH)).fault is None


def test_a_fault_path_picks_its_victims_token_requests_included() -> None:
    service = MetadataService(Settings(fault="reset", fault_path="api/token"))
    assert service.receive(Request("GET", "/latest/")).fault is None
    assert service.receive(Request("PUT", TOKEN_PATH)).fault == "reset"


def test_a_refused_patch_changes_nothing() -> None:
    service = MetadataService()
    before = service.state()
    with pytest.raises(SettingsError):
        service.patch({"http_tokens": "required", "latency": -1})
    assert service.state() == before


def test_a_successor_knows_tokens_and_credentials_of_the_one_before() -> None:
    first = Service()
    token = first.token()
    second = MetadataService(tokens=first.it.tokens, issuer=first.it.issuer, wall=first.clock)
    request = Request("GET", f"{CREDENTIALS}demo-role", token=token)
    assert second.answer(request) == first.it.answer(request)
    assert second.answer(request).status == 200


def test_latencies_are_spread_evenly_and_some_are_in_the_tail() -> None:
    service = MetadataService(Settings(latency=1, latency_spread=0.1, tail_latency=5, tail_rate=0.1))
    delays = sorted(service.receive(Request("GET", "/latest/meta-data/mac")).delay for _ in range(1000))
    assert sum(delay > 2 for delay in delays) == 100
    body = delays[:900]
    assert 1 <= body[0] < 1.001
    assert body[450] == pytest.approx(1.05, abs=0.005)
    assert 1.099 < body[-1] <= 1.1
