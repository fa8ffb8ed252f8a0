"""`python -m dashboard FD PARENT`: the dashboard as a child of `gridgov up`, on a socket that it is given."""

from __future__ import annotations

import socket
import sys

from dashboard.server import die_with, serve


def main() -> None:
    """Serves until told to stop, or until the parent is gone."""
    descriptor, parent = map(int, sys.argv[1:3])
    die_with(parent)
    serve(socket.socket(fileno=descriptor))


main()
