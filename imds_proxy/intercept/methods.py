"""Which method of redirecting it is to be: the one configured, or the first that works here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from imds_proxy.intercept.given import GivenRedirect
from imds_proxy.intercept.redirect import InterceptError, Plan, Redirect

Method = Callable[[Plan], Redirect]
"""Makes a redirect that is not up yet."""

AUTO = "auto"


def put_up(methods: Mapping[str, Method], chosen: str, plan: Plan) -> tuple[Redirect, list[str]]:
    """A redirect in force, and notes on what was tried before it. `auto` tries `methods` in their order.

    Where this process may make none, one that stands (`closed`) and lets its user's calls through is taken as
    it is. Raises InterceptError: that of the first.
    """
    failures: list[tuple[str, InterceptError]] = []
    for name in methods if chosen == AUTO else (chosen,):
        if failures and plan.forwarded and name == "ebpf":
            continue  # it redirects local processes only
        redirect = methods[name](plan)
        try:
            redirect.up()
        except InterceptError as error:
            failures.append((name, error))
        else:
            return redirect, [f"not by {name}: {error}" for name, error in failures]
    first = failures[0][1]
    if first.slug != "no-capability" or not plan.closed or plan.exempt_uid != os.geteuid():
        raise first
    given = GivenRedirect(plan)
    given.up()
    return given, []
