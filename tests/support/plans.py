"""Plans of redirects for tests."""

from __future__ import annotations

from imds_proxy.config_values import Address
from imds_proxy.intercept.redirect import Plan

SERVICES = (Address("100.100.100.200", 80), Address("fd00:100::100:200", 80))
LISTENERS = (Address("169.254.100.200", 200), Address("fd64:64c8::200", 200))
PLAN = Plan(SERVICES, LISTENERS, mark=200)
