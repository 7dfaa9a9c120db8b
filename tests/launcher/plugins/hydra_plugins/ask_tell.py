"""A sampler-driven sweeper as Optuna is one: asks for values that nobody can foresee, is told what they gave."""

import json
import random
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

NODE = {"_target_": "hydra_plugins.ask_tell.AskTell", "each": ["seed=3", "seed=3"]}
ConfigStore.instance().store(group="hydra/sweeper", name="ask_tell", node=NODE)


class AskTell(Sweeper):
    def __init__(self, each):
        self.each = list(each)  # what is given for each trial; its learning rate is asked for

    def setup(self, *, hydra_context, task_function, config):
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments):
        told = []
        sampler = random.SystemRandom()  # no seed: a process that asked a second time would get another value
        for number, given in enumerate(self.each):
            asked = f"optim.lr={sampler.uniform(1e-4, 1e-2)!r}"
            (returned,) = self.launcher.launch([[*arguments, given, asked]], number)
            told.append({"asked": asked, "number": returned.return_value})
        Path(self.config.hydra.sweep.dir, "told.json").write_text(json.dumps(told))
