#!/bin/sh
# Debian: remove or upgrade; RPM: 0 (erased), 1 (upgraded). Leaves no redirect behind: the way to the service is
# open again before the files go.
set -e
case "$1" in remove | 0) ;; *) exit 0 ;; esac

if command -v systemctl >/dev/null; then
  [ ! -d /run/systemd/system ] || systemctl stop imds-proxy.service imds-proxy.socket 2>/dev/null || true
  systemctl disable --quiet imds-proxy.service imds-proxy.socket 2>/dev/null || true
fi
imds-proxy intercept down >/dev/null 2>&1 || true
find /usr/lib/imds-proxy -name __pycache__ -prune -exec rm -rf {} +
