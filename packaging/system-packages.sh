#!/usr/bin/env bash
# The system packages that the tests and benches use. Installs what is missing where it can (Debian,
# Ubuntu, as root), else says exactly what is missing. What only some tests need is not fatal: those
# tests say that they are skipped, and why, but for CI, where nothing is skipped.
set -euo pipefail

declare -A package_of=(
  [ip]=iproute2 [unshare]=util-linux [nft]=nftables [curl]=curl [wget]=wget
  [nginx]=nginx-light [wrk]=wrk [node]=nodejs [npm]=npm [java]=default-jdk-headless [chromium]=chromium
)

missing=()
for command in "${!package_of[@]}"; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null || missing+=("${package_of[$command]}")
done
((${#missing[@]})) || exit 0

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  echo "installing: ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "missing system packages (their tests will be skipped): ${missing[*]}" >&2
  echo "as root on Debian or Ubuntu: apt-get install ${missing[*]}" >&2
  [[ -z "${CI:-}" ]]
fi
