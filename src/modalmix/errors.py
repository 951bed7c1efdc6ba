"""Every error modalmix raises on purpose.

    ModalmixError
    ├── ConfigError        a setting: unknown key, wrong type, impossible combination
    ├── DataError          a data set: file, column, row, id, feature, split
    │   └── UnknownIdError an external id that the data set does not have
    ├── EncodeError        an encoder or its input
    ├── ModelError         a model: unknown name, missing modality, wrong catalogue
    ├── TrainError         the training loop
    │   └── NonFiniteLossError  a loss term became NaN or infinite
    ├── EvaluateError      the evaluator: non-finite scores, nothing to evaluate
    ├── QueryError         a recommendation request the model cannot answer
    └── RunError           a run folder: torn, of another data set, of another version

A message says the thing, what was got, what was expected, and how to fix it.
"""

from collections.abc import Iterable


class ModalmixError(Exception):
    """Base of the tree. `str(error)` reads: thing: got G, expected E. Fix."""

    def __init__(self, thing: str, *, got: object = None, expected: object = None, fix: str | None = None) -> None:
        self.thing, self.got, self.expected, self.fix = thing, got, expected, fix
        facts = [f"{word} {value}" for word, value in (("got", got), ("expected", expected)) if value is not None]
        message = thing.rstrip(".") + (f": {', '.join(facts)}" if facts else "") + "."
        super().__init__(f"{message} {fix}" if fix else message)


class ConfigError(ModalmixError, ValueError):
    """A setting is unknown, of the wrong type, or contradicts another."""


class DataError(ModalmixError, ValueError):
    """A data set cannot be read as it is."""


class UnknownIdError(DataError, KeyError):
    """An external id is not in the data set."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


class EncodeError(ModalmixError, ValueError):
    """An encoder cannot be loaded, or its input cannot be encoded."""


class ModelError(ModalmixError, ValueError):
    """A model is unknown, or cannot work on this catalogue."""


class TrainError(ModalmixError, RuntimeError):
    """Training cannot go on."""


class NonFiniteLossError(TrainError):
    """A named loss term became NaN or infinite."""


class EvaluateError(ModalmixError, ValueError):
    """An evaluation would give a number nobody should trust."""


class QueryError(ModalmixError, ValueError):
    """A recommendation request cannot be answered by this model."""


class RunError(ModalmixError, RuntimeError):
    """A run folder is incomplete, torn, or belongs to another data set."""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name closest to `name`, as a fix: 'Did you mean X?', or the list of known names."""
    import difflib  # only when something is wrong: every start of the command line imports this file

    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(known)}."
