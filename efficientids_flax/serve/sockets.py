"""The listening socket: address, number of connections, and how it refuses new ones."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import sys

BACKLOG = 1024  # connections waiting to be accepted
OTHER_FILES = 256  # open files besides the connections
SO_ATTACH_FILTER = 26  # Linux; Python has no constant for it


def bind(host: str, port: int) -> socket.socket:
    """Create a listening socket.

    Raises:
        OSError: the address cannot be used; names it.
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
    """Raise this process's limit of open files to hold `count` connections, as far as allowed."""
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + OTHER_FILES
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def url_of(listener: socket.socket) -> str:
    """The URL of the server."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def refuse_new(listener: int) -> None:
    """Have the kernel refuse new connections without losing those that wait to be accepted.

    Closing the socket would reset the connections that wait to be accepted. A filter that drops
    packets with the SYN flag keeps them; a later client retransmits its SYN, until the socket is
    closed and it is refused. Does nothing on systems other than Linux.
    """
    if sys.platform != "linux":
        return
    program = (  # classic BPF: code, jump if true, jump if false, number
        (0x30, 0, 0, 13),  # load the flags byte of the TCP header
        (0x45, 0, 1, 0x02),  # SYN?
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # keep
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    descriptor = struct.pack("HP", len(program), ctypes.addressof(code))
    with socket.socket(fileno=os.dup(listener)) as own, contextlib.suppress(OSError):
        own.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, descriptor)
