"""Forks `ppfr party serve` from a process that has imported everything, so that a party starts without delay.

Reads commands from stdin, one JSON object per line, and writes one JSON value per line: {"config", "log", "namespace"}
starts a party and returns its process id; {"wait": id} returns the exit code; {"poll": id} returns the exit code, or
null while the process runs.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

from ppfr.cli import run
from ppfr.secure import FixedPoint
from ppfr.service._parties._server import _compile_kernels

CLONE_NEWNET = 0x40000000


def serve(command: dict[str, str]) -> None:
    """Run a party in the child process."""
    log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, handle in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(handle, number)
    if command["namespace"]:
        handle = os.open(f"/var/run/netns/{command['namespace']}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    code = run(["party", "serve", "--config", command["config"]])
    sys.stdout.flush()
    os._exit(code)


def main() -> None:
    _compile_kernels(FixedPoint(dim=2))
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        command = json.loads(line)
        if "config" in command:
            answer = os.fork()
            if answer == 0:
                try:
                    serve(command)
                finally:
                    os._exit(70)
        elif "wait" in command:
            answer = os.waitstatus_to_exitcode(os.waitpid(command["wait"], 0)[1])
        else:
            found, status = os.waitpid(command["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if found else None
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
