"""One thread per test process: small tensors gain nothing from more, and machines are shared."""

import torch

torch.set_num_threads(1)
