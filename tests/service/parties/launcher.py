"""Starts `ppfr party serve` again and again from one process that has loaded everything: a start takes no seconds.

Reads orders from stdin, a JSON object a line: {"config", "log", "before", "namespace"} starts a party and answers with
its process id; {"wait": id} answers with its exit code; {"poll": id} with its exit code, or null while it runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

from ppfr.cli import run
from ppfr.secure import FixedPoint
from ppfr.service._parties._server import _compile

CLONE_NEWNET = 0x40000000


def serve(order: dict[str, str]) -> None:
    """In the child."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, handle in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(handle, number)
    if order["namespace"]:
        handle = os.open(f"/var/run/netns/{order['namespace']}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    exec(order["before"], {})
    code = run(["party", "serve", "--config", order["config"]])
    sys.stdout.flush()
    os._exit(code)


def main() -> None:
    _compile(FixedPoint(dim=2))
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        order = json.loads(line)
        if "config" in order:
            answer = os.fork()
            if answer == 0:
                try:
                    serve(order)
                finally:
                    os._exit(70)
        elif "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        else:
            found, status = os.waitpid(order["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if found else None
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
