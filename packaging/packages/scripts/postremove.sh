#!/bin/sh
# Debian: remove keeps configuration, state and user, purge does not; RPM: 0 (erased) is both, and keeps a changed
# configuration as config.yaml.rpmsave.
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
case "$1" in purge | 0) ;; *) exit 0 ;; esac

rm -rf /var/lib/imds-proxy /run/imds-proxy
# A daemon that is still being ended holds the user for a moment.
for _ in 1 2 3 4 5; do
  getent passwd imds-proxy >/dev/null || break
  userdel imds-proxy 2>/dev/null && break
  sleep 1
done
if getent group imds-proxy >/dev/null; then groupdel imds-proxy || true; fi
