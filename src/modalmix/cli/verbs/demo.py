"""The main job on a planted shop: drawn pictures and written titles in, a table and recommendations out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

TITLE = "Draw a shop whose truth is known, encode it, train, evaluate three pools, recommend."


def main(arguments: Sequence[str]) -> int:
    """`modalmix demo [--folder FOLDER] [--model NAME]`."""
    from modalmix.cli.options import parse
    from modalmix.config import Config

    class Options(Config):
        """What `demo` takes."""

        folder: Path = Path("runs/demo-shop")
        """Where the shop is drawn (kept, and used again)."""
        model: str = "mamex"
        """The model to train."""
        json_: Annotated[bool, tyro.conf.arg(name="json")] = False
        """Print JSON instead of tables."""

    options = parse(Options, arguments, "demo", TITLE)
    _draw(options.folder)
    return _run(options.folder, options.model, options.json_)


def _draw(folder: Path) -> None:
    from modalmix.cli.show import notice
    from modalmix.data.shop import ShopConfig, plant, write_shop

    if (folder / "interactions.parquet").exists():
        notice(f"using the shop in {folder}")
        return
    notice(f"drawing a shop into {folder}")
    write_shop(plant(ShopConfig(missing_image=0.1)), folder)


def _run(folder: Path, model: str, as_json: bool) -> int:
    from modalmix.cli.show import console, frame_table, print_json, show_evaluation
    from modalmix.cli.train_options import parse_training
    from modalmix.pipeline import evaluate, train_run
    from modalmix.train.source import DataConfig

    flags = [str(folder), "--model", model, "--split", "cold-item"]
    flags += ["--ks", "10", "20", "--evaluate.metrics", "recall", "ndcg"]
    options = parse_training(flags, "demo", TITLE, data=DataConfig(features="raw"))
    run = train_run(options.folder, options.to_run_config(), options.run_folder)
    evaluation = evaluate(run, options.evaluate)
    user = str(run.split.dataset.users.ids([0])[0])
    new_items = run.recommend(users=[user], k=5, candidates="cold")
    if as_json:
        print_json({"run": str(options.run_folder), "evaluation": evaluation.to_dict(), "new": new_items.to_dicts()})
        return 0
    show_evaluation(evaluation, f"{model} on the planted shop, items nobody has bought yet held out whole")
    console.print(frame_table(new_items, f"new items for {user}, from pictures and words alone"))
    console.print(f"next: modalmix recommend {options.run_folder} --users {user} --k 10", highlight=False)
    return 0
