"""Makes server processes quickly: imports everything once, then forks one for each that is wanted.

Run as a program by `servers.Nursery`. What runs in a fork is `agent-mcp serve`, on pipes of its own, with a spy beside.
"""

import array
import ctypes
import gc
import json
import os
import signal
import socket
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import engine_tools  # noqa: F401  # pyright: ignore[reportUnusedImport] AGENT_MCP_TOOLS of the servers
from agent_mcp.cli import main
from agent_mcp.compose import warm_up
from proof.spy import OBEYS, Spy

_LONGEST = 65_536
_CAPABILITY_VERSION_3 = 0x20080522


def obey() -> None:
    """Gives up what lets root write where nobody may; whoever runs as somebody else has it not."""
    if os.geteuid() == 0:
        header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
        nothing = struct.pack("6I", *[0] * 6)
        if ctypes.CDLL(None, use_errno=True).capset(header, nothing) != 0:
            raise OSError(ctypes.get_errno(), "capset")


def serve(environment: dict[str, str], protocol: int, control: int, errors: int) -> None:
    """What a fork does; does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, descriptor in ((0, protocol), (1, protocol), (2, errors)):
        os.dup2(descriptor, number)
    os.close(protocol)
    os.close(errors)
    os.environ.clear()
    os.environ.update(environment)
    if environment.get(OBEYS):
        obey()
    sys.argv = ["agent-mcp", "serve"]
    Spy(environment["AGENT_MCP_DATA_DIR"], socket.socket(fileno=control)).install()
    main()


def run(orders: socket.socket) -> None:
    warm_up()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody asks how they ended.
    orders.send(b"{}")
    while True:
        size = array.array("i").itemsize
        text, ancillary, _, _ = orders.recvmsg(_LONGEST, socket.CMSG_SPACE(3 * size))
        if not text:
            return
        descriptors = array.array("i")
        for _, _, data in ancillary:
            descriptors.frombytes(data)
        pid = os.fork()
        if pid == 0:
            orders.close()
            serve(json.loads(text), *descriptors)
            os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)
        orders.send(json.dumps({"pid": pid}).encode())


if __name__ == "__main__":
    run(socket.socket(fileno=int(sys.argv[1])))
