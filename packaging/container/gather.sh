#!/bin/sh
# Copies what the image needs from this file system to $1: the Python that the launcher takes, its standard library,
# the package, and every shared library that one of them is linked with.
set -eu
image=$1
python=$(readlink -f /usr/bin/python3)
name=${python##*/}
stdlib=/usr/lib/$name

mkdir -p "$image/usr/bin" "$image/usr/lib" "$image/etc" "$image/tmp" "$image/proc" "$image/sys" \
  "$image/run/imds-proxy" "$image/var/lib/imds-proxy"
chmod 1777 "$image/tmp"
for link in bin lib lib64; do
  if [ -L "/$link" ]; then mkdir -p "$image/usr/$link"; cp -d "/$link" "$image/$link"; fi
done

cp "$python" "$image/usr/bin/"
cp -a "$stdlib" /usr/lib/imds-proxy "$image/usr/lib/"
for part in test idlelib tkinter lib2to3 pydoc_data turtledemo ensurepip venv distutils unittest; do
  rm -rf "${image:?}$stdlib/$part"
done
rm -rf "$image$stdlib"/config-*
# Modules for terminals and foreign databases, for the sake of the libraries that they are linked with.
for module in _curses _dbm _gdbm nis ossaudiodev readline _tkinter; do rm -f "$image$stdlib/lib-dynload/$module"*; done
find "$image$stdlib" -name __pycache__ -prune -exec rm -rf {} +
for site in "$image"/usr/lib/imds-proxy/lib/python3.* "$image"/usr/lib/imds-proxy/bin/python3.*; do
  [ "${site##*/}" = "$name" ] || rm -rf "$site"
done
ln -s "../../../bin/$name" "$image/usr/lib/imds-proxy/bin/python"

# libnftables is opened at run time: nothing is linked with it.
nftables=$(ldconfig -p | sed -n 's|.*libnftables\.so\.1 .*=> ||p' | head -n 1)
{ echo "$python"; echo "$nftables"; find "$image" -name '*.so'; } | while read -r file; do
  echo "$file"
  ldd "$file" 2>/dev/null | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*ld-linux[^ ]*\).*/\1/p'
done | sort -u | while read -r file; do
  case $file in "$image"*) continue ;; esac
  mkdir -p "$image$(dirname "$file")"
  cp -nL "$file" "$image$file"
done

echo 'root:x:0:0:root:/:/sbin/nologin
imds-proxy:x:64200:64200:imds-proxy daemon:/var/lib/imds-proxy:/sbin/nologin' >"$image/etc/passwd"
echo 'root:x:0:
imds-proxy:x:64200:' >"$image/etc/group"
chown -R 64200:64200 "$image/run/imds-proxy" "$image/var/lib/imds-proxy"

# Each import compiled, so that a container starts fast, whatever times its files are given (`--timestamp`); a missing
# library shows here, not in a cluster.
chroot "$image" /usr/lib/imds-proxy/bin/python -I -m compileall -qf --invalidation-mode unchecked-hash \
  "$stdlib" /usr/lib/imds-proxy
chroot "$image" /usr/lib/imds-proxy/bin/python -I -c \
  'import ctypes, sqlite3, uvloop, imds_proxy.server.run; ctypes.CDLL("libnftables.so.1")'
chroot "$image" /usr/lib/imds-proxy/bin/python -I -m imds_proxy --version
