"""One thread per test process: small tensors gain nothing from more, and machines are shared."""

import os
import signal

import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("short", max_examples=150, deadline=None, derandomize=True)  # the same for everybody
settings.register_profile("fuzz", max_examples=2000, deadline=None)  # other ones each time
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

# A shell that runs the tests in the background has them ignore Ctrl-C, and every process that they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
