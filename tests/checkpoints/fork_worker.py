"""A child that forks: parses one file after another, each in a fork of a process that has imported torch already.

The fork runs `child.main` itself on the same descriptors, so tests see what a fresh child does, without its two seconds.
"""

import json
import os
import socket
import sys

from landscape.checkpoints.reading import parser_process


def serve(connection: socket.socket) -> None:
    """Answer requests until the other side hangs up."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, 1 << 12, 3)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            connection.close()
            for target, source in enumerate(descriptors):
                os.dup2(source, target)
            sys.argv = ["child", *json.loads(message)]
            status = 1
            try:
                parser_process.main()
                status = 0
            finally:
                os._exit(status)
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(pid, 0)
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
