"""``python -m loopal_cluster``: the same program as ``loopal-cluster``."""

from __future__ import annotations

import gc
import os
import signal
import sys

__all__ = ["main"]

INTERRUPTED = 130
"""The exit status of whatever Ctrl-C has ended: 128 and the number of the signal, as in a shell."""


def main() -> None:
    """Run the command line. An interrupt ends it in silence: also while it is imported, and also a second one."""
    try:
        _open_closed_streams()
        gc.disable()  # what is imported stays; ``cli.app`` enables it when that is done
        from loopal_cluster.cli.app import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        # We are leaving already. Python would otherwise leave with a traceback, or by the signal.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _open_closed_streams() -> None:
    """Have all three standard streams: where one was closed, the next socket would take its number."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
            os.set_inheritable(fd, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, "r" if fd == 0 else "w", closefd=False))


if __name__ == "__main__":
    # ``-m`` has put the working directory there. A hub is often started in a project, and what lies in that is
    # neither ours nor one of its agents: their modules are beside its config file, or installed.
    if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]
    main()
