"""Predict: `python -m aggmask.predict checkpoint=FILE source=FILE|DIR|GLOB output=DIR`."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aggmask.assembly.checking import check_score
from aggmask.assembly.command import hydra_task, run_command
from aggmask.assembly.config import plain, register_resolvers
from aggmask.checkpoints.run_folder import checkpoint_file, checkpoints_of
from aggmask.errors import UserError
from aggmask.files import make_folder
from aggmask.signals import end_at_once

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from aggmask.predictor import Predictor
    from aggmask.structures import Instances

register_resolvers()

RESULTS = "results.json"
_MARK = "aggmask.predict"  # in an overlay: what wrote it
_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"}
_SUFFIXES |= {".ppm", ".pgm", ".tga"}


def predict(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Overlays of a checkpoint's predictions, and `results.json` in the same folder.

    Args:
        config: plain content of `conf/predict.yaml`.

    Returns:
        What is in `results.json`: COCO results, each with its file's path from the folder that `source` names.

    Raises:
        UserError: there is no picture, something of somebody else's would be replaced, or a picture cannot be read;
            the others are done first.
    """
    check_score(config["score_threshold"])
    files = pictures(config["source"])
    folder = Path(config["output"]).expanduser()
    _refuse_others(folder)
    pairs = targets(files, folder)
    checkpoint_file(config["checkpoint"])
    from aggmask.assembly.build import load
    from aggmask.metrics.results import write

    model = load(config["checkpoint"], config["device"], config["short_side"], config["long_side"])
    make_folder(folder, "output")
    write([], folder / RESULTS)  # those of an earlier call would not be of the overlays, if this one is interrupted
    results, failed = [], []
    try:
        for rows in _drawn(model, pairs, _home(config["source"]), config["score_threshold"], failed):
            results += rows
    finally:  # whatever ends it: of the overlays that are there
        write(results, folder / RESULTS)
    print(f"{len(files) - len(failed)} pictures, {len(results)} objects: {folder}")
    if failed:
        raise UserError("\n".join(["some pictures could not be read:", *failed]))
    return results


def _drawn(
    model: Predictor, pairs: list[tuple[Path, Path]], home: Path, score_threshold: float, failed: list[str]
) -> Iterator[list[dict[str, Any]]]:
    """Results of one picture after another, once its overlay is written; `failed` takes what could not be read."""
    from PIL.PngImagePlugin import PngInfo
    from tqdm import tqdm

    from aggmask.data.decode import pixels_of
    from aggmask.drawing.overlay import draw
    from aggmask.predictor import read_picture

    channels, mark = model.segmenter.backbone.in_chans, PngInfo()
    mark.add_text("Software", _MARK)
    for number, (file, target) in enumerate(tqdm(pairs, unit="image")):
        try:
            pixels = read_picture(file, channels, model.value_range)
        except UserError as error:
            failed.append(str(error))
            continue
        found = model.look(pixels, score_threshold, crop=True)
        draw(pixels_of(pixels, 3), found, score_threshold).save(target, pnginfo=mark)
        yield as_results(number, file.relative_to(home).as_posix(), found)


def pictures(source: str) -> list[Path]:
    """The files that a path, a folder or a pattern stands for.

    Raises:
        UserError: there is none.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return [path]
    pattern = str(Path(glob.escape(str(path)), "**", "*")) if path.is_dir() else str(path)
    files = [file for name in glob.glob(pattern, recursive=True) if (file := Path(name)).suffix.lower() in _SUFFIXES]
    found = sorted(file for file in files if file.is_file())
    if not found:
        place = "a folder without pictures" if path.is_dir() else "no such file, folder or pattern"
        raise UserError(f"source={source}: {place} ({', '.join(sorted(_SUFFIXES))})")
    return found


def targets(files: list[Path], folder: Path) -> list[tuple[Path, Path]]:
    """Each file with the overlay to write; where a name is taken by another overlay, it gets a number.

    Raises:
        UserError: an overlay would be written over one of the files, or another picture.
    """
    pairs: dict[Path, Path] = {}
    for file in files:
        target, number = folder / f"{file.stem}.png", 1
        while target in pairs:
            number += 1
            target = folder / f"{file.stem}_{number}.png"
        pairs[target] = file
    taken = {file.resolve() for file in files}
    for target, file in pairs.items():
        if target.resolve() in taken:
            raise UserError(
                f"output={folder}: the overlay of {file} would replace {target}, which is one of the pictures of "
                "source; name another folder"
            )
        if target.is_dir() or (target.exists() and _MARK.encode() not in _head_of(target)):
            raise UserError(f"output={folder}: {target} is there, and was not written by predict; name another folder")
    return [(file, target) for target, file in pairs.items()]


def _refuse_others(folder: Path) -> None:
    """
    Raises:
        UserError: the folder is a training's, or has results that no call of predict wrote.
    """
    from aggmask.metrics.results import EVALUATED

    if checkpoints_of(folder):
        raise UserError(
            f"output={folder}: is the folder of a training, which keeps its own {RESULTS}; name another one"
        )
    head = _head_of(folder / RESULTS) if (folder / RESULTS).exists() else b"[]"
    # Results of an evaluation name no files.
    if (folder / EVALUATED).exists() or (head != b"[]" and b'"file_name"' not in head):
        raise UserError(
            f"output={folder}: {folder / RESULTS} is there, and was not written by predict; name another folder"
        )


def _head_of(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(1024)


def _home(source: str) -> Path:
    """The folder that `source` names, or that its pattern starts from."""
    path = Path(source).expanduser()
    if path.is_file():
        return path.parent
    if path.is_dir():
        return path
    plain = takewhile(lambda part: not glob.has_magic(part), path.parts)
    return Path(*plain) if glob.has_magic(str(path)) else path.parent


def as_results(image_id: int, file_name: str, found: Instances) -> list[dict[str, Any]]:
    """COCO results of one picture; `image_id` counts the pictures from 0."""
    from aggmask.metrics.rle import encode

    height, width = found.size
    boxes, codes = found.boxes.tolist(), [encode(mask[None])[0] for mask in found.masks]
    return [
        {
            "image_id": image_id,
            "file_name": file_name,
            "category_id": found.categories[label].id,
            "category": found.categories[label].name,
            "score": score,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "segmentation": {"size": [height, width], "counts": counts.decode()},
        }
        for label, score, (x1, y1, x2, y2), counts in zip(
            found.labels.tolist(), found.scores.tolist(), boxes, codes, strict=True
        )
    ]


@hydra_task("predict")
def _main(cfg: DictConfig) -> None:
    predict(plain(cfg))


def main() -> None:
    """Entry point of `python -m aggmask.predict` and `aggmask-predict`."""
    end_at_once()
    run_command(_main)


if __name__ == "__main__":
    main()
