"""The redirect without a daemon: put up to refuse or to wait for one (`closed`), taken down, looked at.

A redirect that ends with its holder cannot be put up here: it would end with the command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from imds_proxy.config_intercept import Intercept
from imds_proxy.config_values import Address
from imds_proxy.intercept import passing
from imds_proxy.intercept.addresses import drop_all, hold_all
from imds_proxy.intercept.libnftables import Nftables, NftError
from imds_proxy.intercept.methods import Method, put_up
from imds_proxy.intercept.nftables import refused
from imds_proxy.intercept.preflight import check_route
from imds_proxy.intercept.redirect import InterceptError, Plan, Redirect
from imds_proxy.intercept.report import Report, State
from imds_proxy.intercept.standing import StandingTable, remove_standing, standing_tables


def _plan(config: Intercept, services: Sequence[Address], listeners: Sequence[Address]) -> Plan:
    return Plan(
        services=tuple(services),
        listeners=tuple(listeners),
        mark=config.mark,
        exempt_uid=config.exempt_uid or None,
        forwarded=config.forwarded,
        closed=True,
        lease=None,
    )


def up(config: Intercept, services: Sequence[Address], methods: Mapping[str, Method]) -> None:
    """Puts up what stays: calls are refused until somebody serves. Raises InterceptError."""
    if config.on_failure != "closed":
        raise InterceptError(
            "no-daemon",
            "no daemon answers, and only one can hold a redirect that ends with it",
            "start `imds-proxy run --intercept`, or set intercept.on_failure: closed",
        )
    check_route(services)
    listeners = hold_all(config.address, None)
    try:
        redirect, _ = put_up(methods, config.method, _plan(config, services, listeners))
        redirect.release()
    except InterceptError:
        drop_all(listeners)
        raise


def down(config: Intercept, services: Sequence[Address], methods: Mapping[str, Method]) -> bool:
    """Takes away what stands; whether there was something.

    Raises InterceptError, also where something is left: it belongs to a running process, and ends with it.
    """
    stood = False
    try:
        nft = Nftables()
    except InterceptError as error:
        if error.slug != "no-libnftables":  # without the library there is no table of ours
            raise
    else:
        try:
            stood = bool(standing_tables(nft))
            left = remove_standing(nft)
        except NftError as error:
            raise refused(error) from None
        finally:
            nft.close()
        if left:
            raise InterceptError(
                "held",
                f"table inet {left[0].name} is held by a running process, and goes with it",
                f"stop it; nft list table inet {left[0].name} names the program",
            )
    pinned = _pinned(config, services, methods)
    if pinned is not None:
        pinned.down()
    drop_all(config.address)
    return stood or pinned is not None


def report(config: Intercept, services: Sequence[Address], methods: Mapping[str, Method]) -> Report:
    """What stands, as the kernel says."""
    notes: list[str] = []
    tables: list[StandingTable] = []
    state: State = "off"
    try:
        nft = Nftables()
        try:
            tables = standing_tables(nft)
        finally:
            nft.close()
    except (InterceptError, NftError) as error:
        failure = refused(error) if isinstance(error, NftError) else error
        notes.append(str(failure))
        state = "off" if failure.slug == "no-libnftables" else "unknown"
    past: list[dict[str, Any]] = []
    with suppress(OSError):
        past = passing.described(passing.passing(services, ()))
    names = [str(service) for service in services]
    base = Report(state, False, config.on_failure, services=names, notes=notes, passing=past)
    listeners = [str(address) for address in config.address]
    if tables:
        return replace(_of_table(tables[0], base), listeners=listeners)
    pinned = _pinned(config, services, methods)
    if pinned is not None:
        status = pinned.status()
        return replace(
            base, state="refusing", method="ebpf", held_by="link", name=status.name, listeners=listeners
        )
    return base


def _of_table(table: StandingTable, base: Report) -> Report:
    state: State = "refusing" if table.closed else "in-force" if table.switched else "lapsed"
    notes = list(base.notes)
    if table.owned:
        notes.append("a running process holds it, and does not answer at the admin socket")
    held_by = "owner-table" if table.owned else "table" if table.closed else "lease"
    return replace(base, state=state, method="nftables", held_by=held_by, name=table.name, notes=notes)


def _pinned(config: Intercept, services: Sequence[Address], methods: Mapping[str, Method]) -> Redirect | None:
    """An eBPF redirect that stands without a process."""
    redirect = methods["ebpf"](_plan(config, services, config.address))
    try:
        return redirect if redirect.status().in_force else None
    except OSError:
        return None
