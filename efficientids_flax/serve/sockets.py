"""The socket that listens: where, for how many connections, and how it lets nobody new in."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys

BACKLOG = 1024  # connections that wait to be accepted
OTHER_FILES = 256  # that are open beside the connections
SO_ATTACH_FILTER = 26  # Linux; Python has no name for it


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OSError: naming the address that cannot be had.
    """
    try:
        kind, *_, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.create_server(address[:2], family=kind, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"{host}:{port}: cannot listen there: {error.strerror or error}") from error
    made.setblocking(False)
    return made


def allow_connections(count: int) -> None:
    """Raise this process's bound of open files to what so many connections take, if it may be."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such bound
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def url_of(listener: socket.socket) -> str:
    """Where a server can be reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def refuse_new(listener: int) -> None:
    """Have the kernel let no further connection in, and none that is in be lost.

    A socket that is closed resets the connections that wait to be accepted. A filter that drops
    packets with the SYN flag leaves them, and whoever comes later comes again and finds the socket
    closed. Elsewhere than on Linux nothing is done.
    """
    if sys.platform != "linux":
        return
    program = (  # of the classic BPF: code, jump if true, jump if false, number
        (0x30, 0, 0, 13),  # load the byte of the flags in TCP's header
        (0x45, 0, 1, 0x02),  # SYN?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # keep
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    descriptor = struct.pack("HP", len(program), ctypes.addressof(code))
    with socket.socket(fileno=os.dup(listener)) as own, contextlib.suppress(OSError):
        own.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, descriptor)
