"""`imds-proxy check`: a configuration validated like `nginx -t`, and what in it is allowed but unwise.

Looks at this machine's files where a rule names them; changes nothing.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from imds_proxy.callers.script import is_interpreter
from imds_proxy.config import DEFAULT_PATH, ConfigErrors, Intercept, load
from imds_proxy.config_pods import Names
from imds_proxy.config_values import printable
from imds_proxy.policy.decision import Policy
from imds_proxy.policy.matching import is_glob
from imds_proxy.policy.rules import Rule, hidden_by
from imds_proxy.server.build import policy_of

_PRIVILEGED = 1024  # the first port at which any user may listen
# What the API server tells, where it is asked.
_OF_PODS = (
    "pod_namespace",
    "pod_name",
    "pod_service_account",
    "pod_labels",
)


def run_check(path: Path | None, out: TextIO, err: TextIO) -> int:
    """Exit code 0, with warnings if there are any, or 78 with each error on its own line."""
    if path is None:
        if not DEFAULT_PATH.exists():
            out.write(f"no {DEFAULT_PATH}: the defaults are in force\n")
            return 0
        path = DEFAULT_PATH
    try:
        config = load(path)
    except ConfigErrors as refused:
        for error in refused.errors:
            err.write(f"{error}\n")
        return os.EX_CONFIG
    name = printable(str(path))
    warnings = *warnings_of(policy_of(config), config.pods.names), *warnings_of_redirect(config.intercept)
    for warning in warnings:
        err.write(f"{name}: warning: {printable(warning)}\n")
    out.write(f"{name}: configuration ok\n")
    return 0


def warnings_of(policy: Policy, pod_names: Names) -> Iterator[str]:
    """What is allowed but unwise: one sentence for each."""
    for rule, earlier in hidden_by(policy.rules):
        yield f"rule '{rule.name}' never decides: the earlier rule '{earlier.name}' means all that it means"
    for rule in policy.rules:
        yield from (f"rule '{rule.name}' {what}" for what in _of_rule(rule, policy, pod_names))


def warnings_of_redirect(intercept: Intercept) -> Iterator[str]:
    """What is allowed of a redirect but unwise."""
    for address in intercept.address:
        if intercept.on_failure == "closed" and address.port >= _PRIVILEGED and not intercept.exempt_uid:
            yield (
                f"intercept.address {address} with on_failure closed: while the daemon is dead any user can "
                f"listen there and be given every call; a port below {_PRIVILEGED} is root's"
            )


def _of_rule(rule: Rule, policy: Policy, pod_names: Names) -> Iterator[str]:
    facts = {selector.fact for selector in rule.caller.selectors}
    for fact in _OF_PODS:
        if fact in facts and pod_names == "none":
            yield f"cannot match: pods.names is none, so nothing tells {fact}; a container's name is known"
    if "unit" in facts and facts & {"container", "container_name", "container_image"}:
        yield "cannot match: a caller is in a unit or in a container, never in both"
    executables = rule.caller.patterns("exe")
    if rule.allow and not rule.caller.patterns("script"):
        for path in executables:
            if is_interpreter(path.rpartition("/")[2]):
                yield f"allows a bare interpreter, {path}: any script that it runs; name its script too"
    if rule.allow and not rule.caller.names_boundary and rule.paths.touches(policy.sensitive):
        what = "a program, which any process may imitate" if facts else "every caller"
        yield f"gives a sensitive item to {what}; name a user, unit, container or pod too"
    for path in executables:
        if not is_glob(path):
            yield from _of_file(path, rule)


def _of_file(path: str, rule: Rule) -> Iterator[str]:
    """A rule's executable, and the directories above it, as this machine has them."""
    try:
        file = Path(path).resolve(strict=True)
    except OSError:
        yield f"cannot match on this machine: there is no {path}"
        return
    owners = set(rule.caller.patterns("uid")) | {str(uid) for uid in _uids(rule.caller.patterns("user"))}
    for place in (file, *file.parents):
        status = place.stat()
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        by_group = status.st_mode & stat.S_IWGRP and status.st_gid != 0
        if (status.st_mode & stat.S_IWOTH or by_group) and not sticky:
            yield f"rests on {path}, but {place} is writable by others"
            return
        if status.st_uid and str(status.st_uid) in owners:
            yield f"rests on {path}, but {place} belongs to the user that it names, who can replace it"
            return


def _uids(users: tuple[str, ...]) -> Iterator[int]:
    for user in users:
        try:
            yield int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        except KeyError:
            continue
