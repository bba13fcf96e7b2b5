"""Where unexpected exceptions of threads and connections end.

Only the type of an unexpected exception is logged, because its text could contain anything. The log level DEBUG adds
the traceback.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator

from ppfr.core import PpfrError
from ppfr.service._parties._messages import MalformedError

_log = logging.getLogger("ppfr.party")
_PAUSE_S = 0.5


def log_unexpected(where: str, error: BaseException) -> None:
    """Log an exception that the program does not foresee."""
    _log.error("internal error in %s: %s", where, type(error).__name__, exc_info=_log.isEnabledFor(logging.DEBUG))


def start_thread(name: str, work: Callable[[], None]) -> None:
    """Run `work` in a background thread until it returns; after an unexpected exception, run it again."""
    threading.Thread(target=_supervised, args=(name, work), name=f"ppfr-{name}", daemon=True).start()


def _supervised(name: str, work: Callable[[], None]) -> None:
    pause = threading.Event()
    while True:
        try:
            work()
        except Exception as error:
            log_unexpected(f"thread {name}", error)
            pause.wait(_PAUSE_S)  # a lasting cause must not fill the log
        else:
            return


@contextlib.contextmanager
def ending_connection(what: str) -> Iterator[None]:
    """Log the exception that ends a connection. It affects no other connection.

    Args:
        what: describes the connection in the log.
    """
    try:
        yield
    except (PpfrError, MalformedError) as error:
        _log.info("%s ended: %s", what, error)
    except OSError as error:
        _log.warning("%s failed (%s)", what, getattr(error, "reason", None) or type(error).__name__)
    except Exception as error:
        log_unexpected(what, error)
