#!/bin/sh
# Debian: configure; RPM: 1 (installed), 2 (upgraded). Starts nothing that did not run: whether and when the
# metadata address is redirected is the operator's decision.
set -e
case "$1" in configure | 1 | 2) ;; *) exit 0 ;; esac

if command -v systemd-sysusers >/dev/null; then
  systemd-sysusers imds-proxy.conf
elif ! getent passwd imds-proxy >/dev/null; then
  useradd --system --user-group --no-create-home --home-dir /var/lib/imds-proxy --shell /usr/sbin/nologin \
    --comment "imds-proxy daemon" imds-proxy
fi

# Compiled for the Python that the launcher takes, so that a restart takes no longer than it must.
find /usr/lib/imds-proxy -name __pycache__ -prune -exec rm -rf {} +
for python in /usr/lib/imds-proxy/bin/python3.*; do
  if [ -x "$python" ]; then
    "$python" -I -m compileall -q /usr/lib/imds-proxy/site-packages \
      "/usr/lib/imds-proxy/lib/${python##*/}/site-packages" || true
  fi
done

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart imds-proxy.service || true
fi
