"""Train a model on a data set and leave a run folder."""

from collections.abc import Sequence

TITLE = "Train a model on a data set; selection sees validation only. An interrupted run is resumed."


def main(arguments: Sequence[str]) -> int:
    """`modalmix train DATA --model NAME [--split KIND] [settings]`."""
    from modalmix.cli.show import console, facts_table, print_json
    from modalmix.cli.train_options import parse_training
    from modalmix.pipeline import train_run

    options = parse_training(arguments, "train", TITLE)
    run = train_run(options.folder, options.to_run_config(), options.run_folder)
    facts = {"run": str(options.run_folder), **run.summary()}
    if options.json_:
        print_json(facts)
    else:
        console.print(facts_table(facts, "trained"))
        console.print(f"next: modalmix evaluate {options.run_folder}")
    return 0
