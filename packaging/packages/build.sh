#!/usr/bin/env bash
# Debian and RPM packages of this source tree, in $DIST (dist/): build.sh [--format deb|rpm] [--arch x86_64|aarch64] …
# Each option may stand more than once; without one, both. Compiled parts come from wheels, one for each Python
# minor version, so that one package serves every distribution and any machine can build for either architecture.
set -euo pipefail
cd "$(dirname "$0")/../.."

bin=${BIN:-$PWD/.venv/bin}
dist=${DIST:-dist}
minors=(10 11 12 13 14 15)
formats=() arches=()
while (($#)); do
  case $1 in
    --format) formats+=("${2:?deb or rpm}") ;;
    --arch) arches+=("${2:?x86_64 or aarch64}") ;;
    *) echo "build.sh: unknown option $1; allowed: --format deb|rpm, --arch x86_64|aarch64" >&2; exit 2 ;;
  esac
  shift 2
done
((${#formats[@]})) || formats=(deb rpm)
((${#arches[@]})) || arches=(x86_64 aarch64)

VERSION=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' imds_proxy/__init__.py)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export VERSION SOURCE_DATE_EPOCH

# The same for every architecture: pure Python, documentation, configuration.
stage_pure() {
  local root=$1 site=$1/usr/lib/imds-proxy/site-packages
  pip_into "$site" --python-version 3.10 build/wheel/imds_proxy-*.whl h11 cachetools prometheus-client
  tidy "$site"
  install -D -m 755 packaging/packages/imds-proxy.sh "$root/usr/bin/imds-proxy"
  mkdir -p "$root/usr/lib/imds-proxy/bin"
  for minor in "${minors[@]}"; do ln -s "../../../bin/python3.$minor" "$root/usr/lib/imds-proxy/bin/python3.$minor"; done
  printf 'home = /usr/bin\ninclude-system-site-packages = false\n' >"$root/usr/lib/imds-proxy/pyvenv.cfg"
  install -d "$root/etc/imds-proxy"
  # The example with its keys commented out (`#key: value`; comments stay `# text`): the installed file sets nothing,
  # so that an upgrade may change a default without asking.
  sed -E 's/^([^#[:space:]].*|[[:space:]]+[^#[:space:]].*)$/#\1/' packaging/config.example.yaml \
    >"$root/etc/imds-proxy/config.yaml"
  install -d "$root/usr/lib/systemd/system"
  install -m 644 packaging/systemd/imds-proxy.{service,socket} "$root/usr/lib/systemd/system/"
  install -D -m 644 packaging/systemd/imds-proxy.socket "$root/usr/lib/systemd/system/imds-proxy.socket"
  install -D -m 644 packaging/systemd/imds-proxy.sysusers "$root/usr/lib/sysusers.d/imds-proxy.conf"
  documents "$root"
}

# Man page and shell completion, from the parser of the command line itself.
documents() {
  local root=$1 share=$1/usr/share doc=$1/usr/share/doc/imds-proxy completion=$1/completion shell
  mkdir -p "$share/man/man8" "$doc" "$completion"
  export PYTHONPATH=$root/usr/lib/imds-proxy/site-packages PYTHONDONTWRITEBYTECODE=1  # it is what is packaged
  "$bin/argparse-manpage" --module imds_proxy.cli --function parser --prog imds-proxy --version "$VERSION" \
    --project-name imds-proxy --description 'upgrade normal-mode calls to the ECS metadata service' \
    --manual-section 8 --manual-title 'System Administration' --format single-commands-section \
    --include packaging/man/sections.man --output "$share/man/man8/imds-proxy.8"
  gzip -9n "$share/man/man8/imds-proxy.8"
  for shell in bash zsh fish; do
    "$bin/shtab" --shell "$shell" --error-unimportable imds_proxy.cli.parser >"$completion/imds-proxy.$shell"
  done
  install -m 644 README.md packaging/config.example.yaml packaging/systemd/ebpf.conf "$doc/"
  gzip -9nc CHANGELOG.md >"$doc/NEWS.gz"
  install -m 644 packaging/packages/copyright "$doc/copyright"
  {
    printf 'imds-proxy (%s-1) unstable; urgency=medium\n\n' "$VERSION"
    printf '  * See NEWS.gz.\n\n -- %s  %s\n' "$maintainer" "$(date -uRd "@$SOURCE_DATE_EPOCH")"
  } | gzip -9n >"$doc/changelog.Debian.gz"
}

# What is compiled: for each Python minor version its own uvloop and yaml, without debug information.
stage_compiled() {
  local root=$1 arch=$2 minor site
  for minor in "${minors[@]}"; do
    site=$root/usr/lib/imds-proxy/lib/python3.$minor/site-packages
    pip_into "$site" --implementation cp --python-version "3.$minor" \
      --platform "manylinux_2_17_$arch" --platform "manylinux2014_$arch" --platform "manylinux_2_28_$arch" uvloop pyyaml
    tidy "$site"
    find "$site" -name '*.so' -exec eu-strip --remove-comment {} + -exec chmod 644 {} +
    echo /usr/lib/imds-proxy/site-packages >"$site/imds-proxy.pth"
  done
}

pip_into() {
  "$bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary :all: --target "$@"
}

# Leaves what runs, and METADATA, by which scanners know what is in the package.
tidy() {
  find "$1" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' -o -name py.typed -o -name _testbase.py \) -delete
  find "$1" -path '*.dist-info/*' ! -name METADATA -delete
  find "$1" -name '*.py' -exec sed -i '1{/^#!/d}' {} +  # modules, not programs
  rm -rf "$1/bin"
  find "$1" -type d -empty -delete
}

maintainer=$(sed -n 's/^maintainer: //p' packaging/packages/nfpm.yaml)
work=build/packages
rm -rf "$work"
umask 022
stage_pure "$work/common"
mkdir -p "$dist"
for arch in "${arches[@]}"; do
  cp -a "$work/common" "$work/$arch"
  stage_compiled "$work/$arch" "$arch"
  find "$work/$arch" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +
  for format in "${formats[@]}"; do
    case $format-$arch in *-x86_64) GOARCH=amd64 ;; *-aarch64) GOARCH=arm64 ;; esac
    ROOT=$work/$arch GOARCH=$GOARCH "$bin/nfpm" package --config packaging/packages/nfpm.yaml --packager "$format" --target "$dist/"
  done
done
