#!/usr/bin/env bash
# The system packages that the tests and benches use, or only those of the commands given as arguments.
# Installs what is missing where it can (Debian, Ubuntu, as root), else says exactly what is missing. What
# only some tests need is not fatal here: those tests fail, naming it. In CI it is.
set -euo pipefail

declare -A package_of=(
  [ip]=iproute2 [unshare]=util-linux [nft]=nftables [iptables-nft]=iptables [curl]=curl [wget]=wget
  [nginx]=nginx-light [haproxy]=haproxy [gcc]=build-essential [wrk]=wrk
  [node]=nodejs [npm]=npm [java]=default-jdk-headless [chromium]=chromium
  [go]=golang-go [eu-strip]=elfutils [debootstrap]=debootstrap [lintian]=lintian [rpm]=rpm [man]=man-db
  [systemd-analyze]=systemd [buildah]=buildah [podman]=podman [runc]=runc [catatonit]=catatonit [promtool]=prometheus
)

(($#)) || set -- "${!package_of[@]}"
missing=()
for command; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("${package_of[$command]}")
done
((${#missing[@]})) || exit 0

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "installing: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "missing system packages (the tests that need them will fail): ${missing[*]}" >&2
  echo "as root on Debian or Ubuntu: apt-get install ${missing[*]}" >&2
  [[ -z "${CI:-}" ]]
fi
