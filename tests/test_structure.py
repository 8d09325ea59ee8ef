"""The house itself: where things stand, and what must not creep in."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import sys
from pathlib import Path

import pytest

import imds_proxy

CHECKOUT = Path(__file__).parent.parent
PACKAGE = CHECKOUT / "imds_proxy"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in {"__init__.py", "__main__.py"})
CORE = {"uvloop", "h11", "cachetools", "pyyaml"}


def name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def test_the_tests_meet_the_installed_wheel_not_the_checkout() -> None:
    installed = Path(imds_proxy.__file__).parent
    if "IMDS_PROXY_TEST_CHECKOUT" not in os.environ:  # set by hand while developing
        assert installed != PACKAGE
        for path in MODULES:
            assert (installed / name(path)).read_bytes() == path.read_bytes(), "the wheel is stale"


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_every_module_has_its_tests_where_one_looks_for_them(module: Path) -> None:
    tests = CHECKOUT / "tests" / module.relative_to(PACKAGE).parent / f"test_{module.name}"
    assert "def test_" in tests.read_text()


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_is_small_and_says_what_it_is_for(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= 350
    assert ast.get_docstring(ast.parse(text))
    assert module.stem not in {"utils", "util", "helpers", "common", "misc"}


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_no_global_statement_changes_state_behind_a_callers_back(module: Path) -> None:
    assert not any(isinstance(node, ast.Global) for node in ast.walk(ast.parse(module.read_text())))


def test_h11_is_the_only_parser_of_what_callers_send() -> None:
    importing = {name(path) for path in MODULES if re.search(r"^import h11", path.read_text(), re.MULTILINE)}
    # Callers, the service, monitoring, both sides as they pass, the API server of Kubernetes.
    readers = {"request.py", "exchange.py", "fleetport.py", "conversation.py", "client.py"}
    assert {Path(one).name for one in importing} == readers


def test_the_core_needs_these_four_and_no_more() -> None:
    wanted = importlib.metadata.requires("imds-proxy") or []
    core = {re.split(r"[^\w-]", one)[0].lower() for one in wanted if "extra ==" not in one}
    assert core == CORE


def test_what_is_imported_is_the_standard_library_or_the_core() -> None:
    cloud = {"alibabacloud_credentials", "alibabacloud_ecs20140526", "alibabacloud_tea_openapi"}
    optional = {"server/metrics.py": {"prometheus_client"}, "cutover/ecs.py": cloud}  # extras
    allowed = set(sys.stdlib_module_names) | {"imds_proxy", "uvloop", "h11", "cachetools", "yaml"}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                roots = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots = {(node.module or "").split(".")[0]}
            else:
                continue
            assert roots <= allowed | optional.get(name(path), set()), path


def test_the_changelog_and_the_package_know_one_version() -> None:
    headings = re.findall(r"^## \[?([^\]\s]+)", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0] == imds_proxy.__version__
    assert importlib.metadata.version("imds-proxy") == imds_proxy.__version__


def test_the_readme_begins_with_the_two_commands() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    first = readme.index("```")
    assert "make demo" in readme[first : first + 200]
    assert "make test" in readme[first : first + 200]
