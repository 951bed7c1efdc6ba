"""The command line: one small file a verb. Neither the help nor the list of models imports torch."""

import ast
import importlib
import os
import sys
import warnings
from pathlib import Path

_FOLDER = Path(__file__).parent / "verbs"


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Returns the exit status: 0 done, 1 problems found, 2 a mistake in the input, 130 interrupted."""
    # OpenMP threads that spin while they wait burn several times the CPU on a busy machine; the user's choice stays
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        return _print_version()
    return _run(arguments[0], arguments[1:])


def _run(verb: str, arguments: list[str]) -> int:
    from modalmix.errors import ModalmixError, nearest

    if verb not in _verbs():
        return _complain(f"there is no command '{verb}'. {nearest(verb, _verbs())}")
    warnings.formatwarning = lambda message, *_, **__: f"modalmix: {message}\n"
    try:
        module = importlib.import_module(f"modalmix.cli.verbs.{verb}")
        return int(module.main(arguments) or 0)
    except ModalmixError as error:
        return _complain(str(error))
    except BrokenPipeError:  # `modalmix ... | head` is no mistake
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a file that cannot be written, a folder that is read-only
        return _complain(str(error))
    except KeyboardInterrupt as interrupt:  # training says how to go on
        print(f"modalmix: {interrupt or 'interrupted'}", file=sys.stderr)
        return 130


def _complain(message: str) -> int:
    print(f"modalmix: {message}", file=sys.stderr)
    return 2


def _print_version() -> int:
    from importlib.metadata import version

    print(f"modalmix {version('modalmix')}")
    return 0


def _verbs() -> dict[str, str]:
    """Verb -> first line of its file's docstring, read without importing it."""
    titles = {}
    for path in sorted(_FOLDER.glob("*.py")):
        if path.stem != "__init__":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            titles[path.stem] = (ast.get_docstring(tree) or "").split("\n")[0].rstrip(".")
    return titles


def _help() -> str:
    width = max(len(verb) for verb in _verbs())
    lines = [f"  {verb.ljust(width)}  {title}" for verb, title in _verbs().items()]
    return "\n".join(
        [
            "usage: modalmix COMMAND [OPTIONS]",
            "",
            "Recommendation from what items look like, say and sound like.",
            "",
            "commands:",
            *lines,
            "",
            "modalmix COMMAND --help shows its options; modalmix demo shows everything on a planted shop.",
        ]
    )
