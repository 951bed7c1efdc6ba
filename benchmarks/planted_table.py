"""The tables of `benchmarks.planted`."""

from collections.abc import Iterable
from statistics import mean, stdev
from typing import Any

Row = dict[str, Any]

HEAD = """# Known answers
Made by `python -m benchmarks.planted`, which runs only missing rows; settings, seeds and hashes of every row are in
`planted.jsonl`. Planted shops of 600 users and 800 items, n seeds (shop, split and model), 20 % of the items cold (half
validation, half test), mean ± sd over n. Epochs and calibration chosen on validation. In the first two sections the
default preset has no modality dropout (modality_dropout=0), which makes gates more even; the third shows its worth. The
last section has shops and a split of its own.

"""


def table(rows: list[Row]) -> str:
    """Four sections; n beside every figure."""
    shops = [row for row in rows if row["part"] == "shop"]
    losses = [row for row in rows if row["part"] in ("loss", "ceiling")]
    by_category = [row for row in rows if row["part"] == "categories"]
    sections = (_gate_table(shops), _trial_table(shops), _loss_table(losses), _category_table(by_category))
    return HEAD + "\n".join(line for section in sections for line in (*section, ""))


def _gate_table(rows: list[Row]) -> list[str]:
    places: tuple[tuple[str, str], ...] = (
        ("all", "all"),
        ("noise", "all"),
        ("clean", "all"),
        ("noise", "cold"),
        ("clean", "cold"),
    )
    places += (("noise", "held out"), ("clean", "held out"))
    names = [f"{items}: {state}" if items != "all" else state for state, items in places]
    lines = ["## Weight of text minus weight of image", ""]
    lines += ["Planted: above 0 where half the pictures are noise, below 0 where half the texts are, about 0 where"]
    lines += [
        "nothing is. noise, clean: over items whose own picture or text is. held out: warm items, by experts that were"
    ]
    lines += ["fitted without them (taught only).", ""]
    lines += ["| preset | epoch by | half is noise | n | " + " | ".join(names) + " |", "|---" * (len(names) + 4) + "|"]
    for group, ones in _grouped([row for row in rows if row["gate"]], "preset", "selected_by", "noise"):
        cells = [_spread([row["gate"][state].get(items) for row in ones], "+.2f") for state, items in places]
        lines.append("| " + " | ".join([*group, str(len(ones)), *cells]) + " |")
    return lines


def _trial_table(rows: list[Row]) -> list[str]:
    names = ("cold", "cold in mixed, not calibrated", "cold in mixed")
    lines = ["## Recall@20 of cold items, clean shop", ""]
    lines += ["The linear mean has the recipe of the preset paper. In brackets: random scores.", ""]
    lines += ["| model | epoch by | n | " + " | ".join(names) + " |", "|---" * (len(names) + 3) + "|"]
    clean = [row for row in rows if row["noise"] == "none"]
    for (model, preset, by), ones in _grouped(clean, "model", "preset", "selected_by"):
        cells = [_spread([row["recall@20"][name] for row in ones]) for name in names]
        chance = [f" ({mean(row['random'][name] for row in ones):.3f})" for name in names]
        cells = [cell + floor for cell, floor in zip(cells, chance, strict=True)]
        lines.append("| " + " | ".join([f"{model}, {preset}", by, str(len(ones)), *cells]) + " |")
    return lines


def _loss_table(rows: list[Row]) -> list[str]:
    lines = ["## 80 % of the items lose one of their modalities after training", ""]
    lines += [
        "Recall@20 of the cold pool, mean over draws of the loss; kept: over that of whole content. ± over n seeds"
    ]
    lines += ["(shop, split, model). The ceiling knows every taste. movielens-posters: validation.", ""]
    lines += ["| data | missing | modality dropout | n | draws | whole | after the loss | sd over draws | kept |"]
    lines += ["|---" * 9 + "|"]
    known = [{"missing": "ceiling", "modality_dropout": "-", **row} for row in rows]
    for group, ones in _grouped(known, "data", "missing", "modality_dropout"):
        whole, lost = ([row["curve"]["points"][at]["pools"]["cold"]["recall@20"] for row in ones] for at in (0, 1))
        cells = [str(lost[0]["n"]), _spread([one["mean"] for one in whole]), _spread([one["mean"] for one in lost])]
        cells += [f"{mean(one['sd'] for one in lost):.4f}", _spread([one["retained"] for one in lost], ".1%")]
        lines.append("| " + " | ".join([*map(str, group), str(len(ones)), *cells]) + " |")
    return lines


def _category_table(rows: list[Row]) -> list[str]:
    lines = ["## CAMMSR: weight of text minus weight of image, by category", ""]
    lines += ["400 users, 400 items, leave-last-two-out; users follow words in even categories and looks in odd ones."]
    lines += [
        "Planted: above 0 in categories of words, below 0 in those of looks. Category shown by text (the shop as it"
    ]
    lines += ["is), by both, or by the decisive modality alone, the other being noise in that category. NDCG@10"]
    lines += ["on test, nothing masked; in brackets: random scores.", ""]
    lines += ["| category shown by | weighting | wrong labels | n | words | looks | id | NDCG@10 |", "|---" * 8 + "|"]
    for (shows, weighting, wrong), ones in _grouped(rows, "shows", "weighting", "label_noise"):
        weights = [row["weights"] for row in ones]
        cells = [_spread([one[of]["text"] - one[of]["image"] for one in weights], "+.2f") for of in ("words", "looks")]
        cells += [_spread([(one["words"]["id"] + one["looks"]["id"]) / 2 for one in weights], ".2f")]
        cells += [_spread([row["ndcg@10"] for row in ones]) + f" ({mean(row['random'] for row in ones):.3f})"]
        lines.append("| " + " | ".join([shows, weighting, f"{wrong:.0%}", str(len(ones)), *cells]) + " |")
    return lines


def _grouped(rows: Iterable[Row], *names: str) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """Rows by the values of these keys, in the order of their first row."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return list(groups.items())


def _spread(values: list[float | None], form: str = ".4f") -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{mean(known):{form}}" + (f" ± {stdev(known):{form.lstrip('+')}}" if len(known) > 1 else "")
