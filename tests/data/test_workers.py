"""A real worker process: whose signals it heeds."""

import signal
import subprocess
import sys
import time

import pytest

from tests.launcher.processes import environment, is_alive

CODE = "import time; from aggmask.data.workers import leave_signals; leave_signals(0); print('ready', flush=True); "


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not tell who sent a signal")
def test_a_worker_ends_when_its_parent_says_so_and_by_no_other_signal():
    worker = subprocess.Popen(
        [sys.executable, "-c", f"{CODE}time.sleep(60)"], env=environment(), stdout=subprocess.PIPE, text=True
    )
    try:
        assert worker.stdout.readline() == "ready\n"
        for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            worker.send_signal(number)
        subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)  # another process than the parent
        time.sleep(0.3)
        assert is_alive(worker.pid)
        worker.terminate()
        assert worker.wait(10) == 0
    finally:
        worker.kill()
        worker.wait()
