"""Who a caller stably is."""

from __future__ import annotations

import pytest

from imds_proxy.ledger.entries import StableCaller, pod_owner
from imds_proxy.policy.caller import Caller, Identity, Pod, Process, Program


def stable(pid: int = 7, **more: object) -> StableCaller:
    return StableCaller.of(
        Caller(
            Identity(33, unit="web.service"),
            user="www-data",
            process=Process(pid, "/usr/bin/python3", "python3", ("python3", "app.py")),
            program=Program(script="/srv/app.py"),
            **more,  # type: ignore[arg-type]
        )
    )


def test_another_process_of_a_program_is_the_same_caller() -> None:
    assert stable(7).key == stable(8).key
    assert stable().cmdline == "python3 app.py"


def test_every_fact_that_names_a_caller_makes_another_one() -> None:
    facts = {
        "exe": "/a",
        "script": "/a",
        "user": "a",
        "unit": "a",
        "container": "a",
        "image": "a",
        "pod": "a",
    }
    keys = {StableCaller(**{name: value}).key for name, value in facts.items()}  # type: ignore[arg-type]
    assert len(keys) == len(facts)
    assert StableCaller(uid=1).key != StableCaller(uid=2).key


def test_containers_of_one_image_are_one_caller_and_pods_of_one_owner_too() -> None:
    assert StableCaller(container="1", image="i").key == StableCaller(container="2", image="i").key
    assert StableCaller(image="i", pod="n/a").key == StableCaller(image="j", pod="n/a").key
    assert StableCaller(container="1").key != StableCaller(container="2").key


@pytest.mark.parametrize(
    ("name", "labels", "owner"),
    [
        ("web-5d4f8c7b9-x2x4z", {"pod-template-hash": "5d4f8c7b9"}, "shop/web"),
        ("db-0", {"controller-revision-hash": "db-7c9"}, "shop/db"),
        ("sync-28000-abcde", {"job-name": "sync-28000"}, "shop/sync-28000"),
        ("alone", {}, "shop/alone"),
        ("web-5d4f8c7b9-x2x4z", {}, "shop/web-5d4f8c7b9-x2x4z"),
    ],
)
def test_a_pods_owner_is_told_from_what_its_controller_noted(
    name: str, labels: dict[str, str], owner: str
) -> None:
    assert pod_owner(Pod("shop", name, "default", labels)) == owner
