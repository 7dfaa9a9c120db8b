"""Convert: `python -m aggmask.convert source=FILE output=FILE`, from a published checkpoint or to one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aggmask.assembly.command import hydra_task, run_command
from aggmask.assembly.config import plain, register_resolvers
from aggmask.errors import UserError
from aggmask.files import make_folder, write_whole

if TYPE_CHECKING:
    from omegaconf import DictConfig

register_resolvers()


def convert(config: Mapping[str, Any]) -> Path:
    """Write a checkpoint in the other form.

    Args:
        config: plain content of `conf/convert.yaml`.

    Returns:
        The file that was written.

    Raises:
        UserError: the source is not what it should be; see `assembly.published`.
    """
    import torch

    from aggmask.assembly.build import read_checkpoint
    from aggmask.assembly.published import as_published, from_published
    from aggmask.checkpoints.reading import read_file

    source, output = config["source"], Path(config["output"]).expanduser()
    if output.resolve() == Path(source).expanduser().resolve():
        raise UserError(f"output={output}: is the source; name another file")
    if output.is_dir():
        raise UserError(f"output={output}: is a folder; name a file")
    if config["format"] == "aggmask":
        keys = ("base", "grids", "mask_grids", "categories", "aggregation")
        read = read_file(source, config["trust_pickle"], "source")
        content = from_published(read, source, **{key: config[key] for key in keys})
    elif config["format"] == "published":
        content = as_published(read_checkpoint(source), config["names"])
    else:
        raise UserError(f"format={config['format']}: must be aggmask or published")
    make_folder(output.parent, "output")
    write_whole(output, lambda file: torch.save(content, file))
    print(f"{len(content['state_dict'])} weights: {output}")
    return output


@hydra_task("convert")
def _main(cfg: DictConfig) -> None:
    convert(plain(cfg))


def main() -> None:
    """Entry point of `python -m aggmask.convert` and `aggmask-convert`."""
    run_command(_main, open_nodes=("aggregation",))


if __name__ == "__main__":
    main()
