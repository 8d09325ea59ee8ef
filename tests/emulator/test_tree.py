import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_proxy.emulator.tree import Tree, locate

TREE = Tree(
    {
        "meta-data/mac": b"00:16",
        "meta-data/disks/a/id": b"d-1",
        "meta-data/disks/b/id": b"d-2",
        "meta-data/ram/security-credentials/demo-role": b' {\n  "Code" : "Success"\n}',
        "user-data": b"raw",
        "echo": lambda query: query.encode(),
    }
)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/latest", ""),
        ("/latest/", ""),
        ("/2016-01-01/user-data", "user-data"),
        ("/latest//meta-data///mac", "meta-data/mac"),
        ("/latest/meta-data/macs/00%3A16", "meta-data/macs/00:16"),
        ("/latest/meta-data/Ram/security-credentials/", "meta-data/ram/security-credentials/"),
        ("/latest/meta-data/RAM", "meta-data/ram"),
        ("/latest/meta-data/Mac", "meta-data/Mac"),
        ("/latest/meta-data/Rampart", "meta-data/Rampart"),
        ("/latest/Ram/x", "Ram/x"),
        ("/latestx/meta-data", None),
        ("/2014-11-05/meta-data", None),
        ("meta-data", None),
        ("", None),
        ("*", None),
    ],
)
def test_a_path_is_located_below_its_version(path: str, place: str | None) -> None:
    assert locate(path) == place


@given(st.text())
def test_any_path_is_located_or_not_and_looked_up_without_an_error(path: str) -> None:
    place = locate(path.encode("utf-8", "surrogatepass").decode("latin-1"))
    assert place is None or TREE.look_up(place) is None or isinstance(TREE.look_up(place), bytes)


def test_the_root_lists_the_versions() -> None:
    assert TREE.look_up("/") == b"2016-01-01\nlatest"


def test_a_directory_lists_with_and_without_its_slash_and_marks_directories() -> None:
    assert TREE.look_up("meta-data") == TREE.look_up("meta-data/") == b"disks/\nmac\nram/"
    assert TREE.look_up("") == b"echo\nmeta-data/\nuser-data"
    assert TREE.look_up("meta-data/disks/") == b"a/\nb/"


def test_a_leaf_with_a_slash_is_not_found() -> None:
    assert TREE.look_up("meta-data/mac/") is None


def test_what_is_not_there_is_not_found() -> None:
    assert TREE.look_up("meta-data/ma") is None
    assert TREE.look_up("meta-data/../user-data") is None


def test_a_leaf_may_be_made_of_the_query() -> None:
    assert TREE.look_up("echo", "a=1") == b"a=1"


def test_the_json_of_a_directory_nests_and_leaves_out_what_it_is_told_to() -> None:
    assert json.loads(TREE.as_json("meta-data", without="meta-data/mac")) == {
        "disks": {"a": {"id": "d-1"}, "b": {"id": "d-2"}},
        "ram": {"security-credentials": {"demo-role": {"Code": "Success"}}},
    }
