"""The whole job on a folder: read, encode, split, train, evaluate."""

from collections.abc import Sequence

TITLE = "From raw pictures and texts to a table of trusted numbers and a run folder that recommends."


def main(arguments: Sequence[str]) -> int:
    """`modalmix run DATA --model NAME [--split KIND] [settings]`. Starts from raw content where there is any."""
    from modalmix.cli.train_options import parse_training
    from modalmix.train.source import DataConfig

    options = parse_training(arguments, "run", TITLE, data=DataConfig(features="raw"))
    return run_and_show(options)


def run_and_show(options) -> int:  # type: ignore[no-untyped-def]
    """Run, print the table (or JSON) and say what to do next."""
    from modalmix.cli.show import console, notice, print_json, show_evaluation
    from modalmix.pipeline import evaluate, train_run

    run = train_run(options.folder, options.to_run_config(), options.run_folder)
    modalities = run.summary()["modalities"].items()
    notice("modalities: " + (", ".join(f"{name} ({share})" for name, share in modalities) or "none, ids only"))
    evaluation = evaluate(run, options.evaluate)
    if options.json_:
        print_json({"run": str(options.run_folder), **run.summary(), "evaluation": evaluation.to_dict()})
        return 0
    show_evaluation(evaluation, f"{options.folder.name}: {options.model}, {run.split.kind}, test split")
    user = run.split.dataset.users.ids([0])[0]
    console.print(f"next: modalmix recommend {options.run_folder} --users {user}", highlight=False)
    return 0
