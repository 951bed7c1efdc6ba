"""Write the file tree of README.md: one line a file, its comment is the first line of the file's docstring.

python scripts/tree.py            rewrites the tree between the markers
python scripts/tree.py --check    exit status 1 when the README is out of date
"""

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
START, END = "<!-- tree -->\n", "<!-- end of tree -->"
SHOWN = ("src/modalmix", "benchmarks")


def tree() -> str:
    """The tree as a code block."""
    lines = []
    for folder in SHOWN:
        lines.append(f"{folder}/")
        for path in sorted((ROOT / folder).rglob("*.py"), key=_order):
            parts = path.relative_to(ROOT / folder).parts
            if path.name == "__init__.py":
                if len(parts) > 1:
                    lines.append(_line("  " * (len(parts) - 1) + parts[-2] + "/", path))
                continue
            lines.append(_line("  " * len(parts) + path.name, path))
    return "```\n" + "\n".join(lines) + "\n```\n"


def _order(path: Path) -> tuple[object, ...]:
    """Files of a folder first, its __init__ before them, then its folders."""
    parts = path.relative_to(ROOT).parts
    return (*((1, part) for part in parts[:-1]), (0, "" if path.name == "__init__.py" else path.name))


def _line(name: str, path: Path) -> str:
    title = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0].rstrip(".")
    return f"{name:<28}{title}"


def main() -> int:
    """Rewrite or check."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    new = before + START + tree() + END + after
    if "--check" in sys.argv:
        if new != text:
            print("the file tree of README.md is out of date: run make format")
        return int(new != text)
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
