"""What of the answer a split lets training see."""

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool

from modalmix.data.identical import row_keys
from modalmix.data.interactions import Interactions
from modalmix.data.split import Split


@dataclass(frozen=True)
class LeakReport:
    """Counts and shares; `problems` says which of them make numbers wrong, `notes` which to mention beside them."""

    kind: str
    events: dict[str, int]
    """Events of train, valid and test."""
    shared_pairs: dict[str, int]
    """(user, item) pairs that two parts have in common, by "train and valid" and so on."""
    repeated_pairs: dict[str, int]
    """Events that repeat a pair of the same part."""
    cold_items: int
    """Held-out items without a train event."""
    cold_items_in_train: int
    """Items declared cold that have train events."""
    cold_items_in_both: int
    """Cold items with validation and with test events: tuning has seen them."""
    before_own_train: float | None
    """Share of held-out events earlier than a train event of the same user; None without times."""
    before_any_train: float | None
    """Share of held-out events earlier than the last train event of anybody; None without times in seconds."""
    users_without_train: dict[str, int]
    """Users of valid and of test who have no train event."""
    content_twins: dict[str, int]
    """By modality, cold held-out items whose feature row equals that of a warm item."""
    tied_events: int = 0
    """Events that share user and time with another one, where the split goes by time: they stand as in the file."""
    users_split_by_a_tie: int = 0
    """Users of whom such a tie is parted: which event is held out follows from the order of the file."""

    @property
    def problems(self) -> list[str]:
        """What makes numbers of this split wrong."""
        found = [f"{count:,} (user, item) pairs are in {pair}" for pair, count in self.shared_pairs.items() if count]
        if self.cold_items_in_train:
            found.append(f"{self.cold_items_in_train:,} items declared cold have train events")
        if self.cold_items_in_both and self.kind == "cold-item":
            found.append(f"{self.cold_items_in_both:,} cold items are both in validation and in test")
        ordered = {"leave-last-two-out": self.before_own_train, "global-time": self.before_any_train}.get(self.kind)
        if ordered:
            found.append(f"{ordered:.1%} of the held-out events are earlier than train events")
        return found

    @property
    def notes(self) -> list[str]:
        """What to say beside the numbers."""
        found = [f"{count:,} events of {part} repeat a pair" for part, count in self.repeated_pairs.items() if count]
        if self.kind == "global-time" and self.before_any_train is None:
            found.append("times are an order, not seconds: where each user has an own order, global-time parts nothing")
        if self.before_any_train and self.kind != "global-time":
            found.append(f"{self.before_any_train:.1%} of the held-out events are earlier than the last train event")
        if self.before_own_train and self.kind != "leave-last-two-out":
            share = f"{self.before_own_train:.1%}"
            found.append(f"{share} of the held-out events are earlier than a train event of the same user")
        if self.tied_events:
            found.append(f"{self.tied_events:,} events share user and time with another one: they stand as in the file")
        if self.users_split_by_a_tie:
            found.append(f"of {self.users_split_by_a_tie:,} users the file's order says which of two such is held out")
        found += [
            f"{count:,} users of {part} have no train event"
            for part, count in self.users_without_train.items()
            if count
        ]
        found += [
            f"{count:,} of {self.cold_items:,} cold items have the same {name} as a warm item"
            for name, count in self.content_twins.items()
            if count
        ]
        return found

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: the fields, problems and notes."""
        return {**asdict(self), "problems": self.problems, "notes": self.notes}


def leak_report(split: Split) -> LeakReport:
    """Look for leaks between the parts of a split, also through time and through content."""
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    held_out = split.valid + split.test
    warm = split.train.item_degree > 0
    cold = (held_out.item_degree > 0) & ~warm
    return LeakReport(
        kind=split.kind,
        events={name: len(part) for name, part in parts.items()},
        shared_pairs={f"{a} and {b}": _shared(parts[a], parts[b]) for a, b in combinations(parts, 2)},
        repeated_pairs={name: len(part) - part.csr.nnz for name, part in parts.items()},
        cold_items=int(cold.sum()),
        cold_items_in_train=_declared_cold_in_train(split, warm, cold),
        cold_items_in_both=int((cold & (split.valid.item_degree > 0) & (split.test.item_degree > 0)).sum()),
        before_own_train=_before(split.train, held_out, own=True),
        before_any_train=_before(split.train, held_out, own=False),
        users_without_train={
            name: int(((parts[name].user_degree > 0) & (split.train.user_degree == 0)).sum())
            for name in ("valid", "test")
        },
        content_twins=_content_twins(split, warm, cold),
        tied_events=split.report.get("events_tied_in_time", 0),
        users_split_by_a_tie=split.report.get("users_split_by_a_tie", 0),
    )


def _shared(one: Interactions, other: Interactions) -> int:
    """(user, item) pairs in both."""
    return one.csr.multiply(other.csr).nnz


def _declared_cold_in_train(split: Split, warm: Bool[np.ndarray, " items"], cold: Bool[np.ndarray, " items"]) -> int:
    """Items that labels or the split itself call cold, and train knows."""
    labels = split.dataset.labels
    if split.kind == "as-given" and labels is not None:
        says_cold = np.char.endswith(labels.astype(str), "_cold")
        declared = np.unique(split.dataset.interactions.item[says_cold])
        return int(warm[declared].sum())
    return max(0, split.report.get("cold_items", 0) - int(cold.sum()))


def _before(train: Interactions, held_out: Interactions, own: bool) -> float | None:
    """Share of held-out events with time < the last train event, of the same user or of anybody."""
    if train.time is None or held_out.time is None or len(held_out) == 0:
        return None
    if not own and not train.in_seconds:  # an order may count within each user
        return None
    if not own:
        return float((held_out.time < train.time.max()).mean())
    last = np.full(train.n_users, np.iinfo(np.int64).min)
    np.maximum.at(last, train.user, train.time)
    return float((held_out.time < last[held_out.user]).mean())


def _content_twins(split: Split, warm: Bool[np.ndarray, " items"], cold: Bool[np.ndarray, " items"]) -> dict[str, int]:
    """By modality, the cold items that have the feature row of a warm item."""
    twins = {}
    for name, modality in split.dataset.catalog.modalities.items():
        keys = row_keys(modality)
        twins[name] = int(np.isin(keys[cold & modality.present], keys[warm & modality.present]).sum())
    return twins
