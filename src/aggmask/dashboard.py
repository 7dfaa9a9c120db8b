"""Dashboard: `python -m aggmask.dashboard entity=NAME [project=NAME] [output=FILE]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aggmask.assembly.command import hydra_task, run_command
from aggmask.assembly.config import plain, register_resolvers
from aggmask.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

register_resolvers()


def dashboard(config: Mapping[str, Any]) -> Any:
    """The workspace of a project's runs: made on the W&B server, or written to a file.

    Args:
        config: plain content of `conf/dashboard.yaml`.

    Raises:
        UserError: nobody said where to; see `aggmask.assembly.workspace`.
    """
    from aggmask.assembly.workspace import send, workspace, write

    if not (config["entity"] or config["output"]):
        raise UserError("say entity=NAME, a user or team of W&B, or output=workspace.json to write a file")
    made = workspace(config)
    print(write(made, config["output"]) if config["output"] else send(made))
    return made


@hydra_task("dashboard")
def _main(cfg: DictConfig) -> None:
    dashboard(plain(cfg))


def main() -> None:
    """Entry point of `python -m aggmask.dashboard` and `aggmask-dashboard`."""
    run_command(_main)


if __name__ == "__main__":
    main()
