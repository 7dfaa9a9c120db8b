"""What a loader's worker process does with signals: Ctrl-C and clusters send them to all processes of a run.

The main process answers them, by finishing its step and saving; for that it needs its workers. They end when it says
so, or when it has ended.
"""

from __future__ import annotations

import os
import signal
import threading


def leave_signals(worker: int) -> None:
    """For `DataLoader(worker_init_fn=...)`: signals that end a run do not end a worker, except its parent's SIGTERM."""
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_heed, args=(os.getppid(),), daemon=True).start()


def _heed(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:  # a handler would not be told who sent it
        pass
    os._exit(0)
