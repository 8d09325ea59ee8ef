#!/bin/sh
# imds-proxy on the distribution's Python: its default one where that is 3.10 or newer, else the newest beside
# it. All that it imports beyond the standard library comes with this package (lib/python3.N/site-packages).
home=/usr/lib/imds-proxy
minor=$(readlink -f /usr/bin/python3)
minor=${minor##*/python3.}
for minor in "$minor" 15 14 13 12 11 10; do
  if [ -x "$home/bin/python3.$minor" ]; then
    exec "$home/bin/python3.$minor" -I -B -m imds_proxy "$@"
  fi
done
echo "imds-proxy: needs Python 3.10 to 3.15 in /usr/bin, for example the package python3.11" >&2
exit 1
