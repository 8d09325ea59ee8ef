"""libnftables.so.1 in this process, by ctypes: commands in the language of nft, run as transactions.

In-process, because a table with `flags owner` lives as long as the netlink socket that made it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from imds_proxy.intercept.redirect import InterceptError

_NETLINK_NETFILTER = 12  # linux/netlink.h
_SO_PROTOCOL, _SO_DOMAIN = 38, 39
_OUTPUT_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON
_HIGHEST = 1023  # the library calls select(), which ends the process at a descriptor above
_KNOWN = (errno.EPERM, errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EEXIST, errno.EBUSY)


class NftError(Exception):
    """A command was refused, whole. `code` is the errno where the library names one, else None."""

    def __init__(self, text: str) -> None:
        super().__init__(text.strip().split("\n")[0] or "it was refused without a reason")
        self.code = next((code for code in _KNOWN if os.strerror(code) in text), None)


class Nftables:
    """One context of the library, with a netlink socket of its own. Not thread-safe."""

    def __init__(self, library: str = "libnftables.so.1") -> None:
        """Raises InterceptError where the library or the kernel's part is missing."""
        self._library = _loaded(library)
        try:
            # The library ends the process when it gets no socket.
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER).close()
        except OSError as error:
            raise InterceptError(
                "no-nftables",
                f"the kernel gives no netfilter socket: {error.strerror}",
                "it needs nf_tables, and a service manager that allows AF_NETLINK",
            ) from None
        before = _netfilter_sockets()
        self._context: int | None = self._library.nft_ctx_new(0)
        self.descriptor = min(_netfilter_sockets() - before, default=-1)
        if not 0 <= self.descriptor <= _HIGHEST:
            self.close()
            raise InterceptError(
                "no-descriptor",
                f"libnftables has no low descriptor ({self.descriptor})",
                "restart the daemon",
            )
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, commands: str, *, as_json: bool = False) -> str:
        """Runs the commands as one transaction; what they print. Raises NftError: then nothing is changed."""
        if self._context is None:
            raise NftError("the context is closed")
        self._library.nft_ctx_output_set_flags(self._context, _OUTPUT_JSON if as_json else 0)
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode("ascii"))
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        errors: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftError(errors.decode("utf-8", "replace"))
        return output.decode("utf-8", "replace")

    def close(self) -> None:
        """Closes the socket: unless somebody holds a copy, the kernel removes the tables that it owns."""
        if self._context is not None:
            self._library.nft_ctx_free(self._context)
            self._context = None


class LowDescriptor:
    """Keeps a low descriptor for the library: a daemon with a thousand connections has no other left."""

    def __init__(self) -> None:
        self._held: int | None = None
        self.keep()

    def keep(self) -> None:
        """Takes the lowest that is free, if none is kept."""
        if self._held is None:
            self._held = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def give(self) -> None:
        """Lets it go for what is opened next."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


@lru_cache(maxsize=4)
def _loaded(name: str) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(name)
    except OSError:
        raise InterceptError(
            "no-libnftables",
            f"{name} cannot be loaded",
            "install libnftables1 (Debian, Ubuntu) or nftables (RPM distributions)",
        ) from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_ctx_output_set_flags.restype = None
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    return library


def _netfilter_sockets() -> set[int]:
    """This process's netlink sockets to netfilter, by descriptor."""
    found = set()
    for path in list(Path("/proc/self/fd").iterdir()):
        number = int(path.name)
        with suppress(OSError):  # not a socket, or the listing's own descriptor
            one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0, number)
            try:
                domain = one.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN)
                protocol = one.getsockopt(socket.SOL_SOCKET, _SO_PROTOCOL)
            finally:
                one.detach()
            if (domain, protocol) == (socket.AF_NETLINK, _NETLINK_NETFILTER):
                found.add(number)
    return found
