"""Measure the structure and the language of a checkout, and list the functions that one job enters.

    python benchmarks/structure.py [ROOT]                      # a Markdown table of this checkout, or of ROOT
    python benchmarks/structure.py NEW --against OLD           # both side by side
    python benchmarks/structure.py --where picture             # file:line of a house word; `long` for long lines
    python benchmarks/structure.py --walk [--against OLD]      # functions entered by three small jobs

The table needs the standard library only and works at every commit. A room is a package or module directly under
`bgaug/`; `cli` and `pipelines` are rooms of the import graph too. House words are counted as whole words in code
(identifiers are split at underscores) and in Markdown, per 10,000 words separated by white space.

--walk runs the command line of the checkout: `build-shards` on one generated video, one step of `train`, and
`evaluate`. It lists every function of bgaug at its first call, in worker processes too but not during imports, and
counts how often the list goes from one room to another. It therefore needs what bgaug needs, installed for this Python.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

FOLDERS = {"bgaug": "bgaug", "cli": "bgaug.cli", "pipelines": "bgaug.pipelines"}  # and the installed name of each
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md")
WIDTH = 120

# Word in the table: what counts as it. Words with another, technical meaning are counted all the same.
HOUSE_WORDS = {
    "told": "told",
    "tells": "tells?|telling",
    "says": "says?|said|saying",
    "wanted": "wants?|wanted",
    "alone": "alone",
    "anew": "anew",
    "dear": "dear|dearer|dearest",
    "mend": "mends?|mended|mending",
    "picture": "pictures?",
    "nobody": "nobody",
    "somebody": "somebody",
    "everybody": "everybody",
    "whoever": "whoever",
    "whom": "whom",
    "beside": "beside",
    "of no account": "of no account",
    "takes no notice": "(?:takes?|took) no notice",
    "cannot be.": r"cannot be(?=\s*[^\w\s`{'\"(]|\s*$)",  # with nothing behind it
    "suffice": "suffices?|sufficed",
    "room": "rooms?",
    "owed": "owed",
    "come by": "c[ao]mes? by",
    "gone on": "(?:go|goes|gone|going|went) on",
    "leaves with": "leaves? with",
    "stands": "stands?|stood",
    "knows": "knows?|knew",
    "thinks": "thinks?|thought",
    "worth": "worth",
    "foreign": "foreign",
    "watch": "watch|watche[sd]|watching",
}
_PATTERNS = {
    word: re.compile(f"(?<![A-Za-z])(?:{forms})(?![A-Za-z])", re.IGNORECASE | re.MULTILINE)
    for word, forms in HOUSE_WORDS.items()
}

Graph = dict[str, set[str]]


def main() -> None:
    """Print what the options request."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", default=Path(__file__).parents[1], help="a checkout")
    parser.add_argument("--against", type=Path, metavar="OLD", help="a second checkout, shown as the left column")
    parser.add_argument("--where", metavar="WORD", help="list file:line of a house word, or of `long` lines")
    parser.add_argument("--walk", action="store_true", help="trace a build, a training step and an evaluation")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of Markdown")
    given = parser.parse_args()
    roots = [path.resolve() for path in ([given.against] if given.against else []) + [given.root]]
    if given.where is not None:
        print("\n".join(f"{place}: {line.strip()}" for place, line in where(roots[-1], given.where)))
        return
    columns: list[Any] = [walks(root) if given.walk else measure(root) for root in roots]
    heads = [commit(root) for root in roots]
    if given.json:
        print(json.dumps(dict(zip(heads, columns, strict=True)), indent=1))
    elif given.walk:
        show_walks(heads, columns)
    else:
        rows = [[name, *(str(column.get(name, "")) for column in columns)] for name in columns[-1]]
        print(table(["", *heads], rows))


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def commit(root: Path) -> str:
    """The first digits of the commit; `+` if files differ from it."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or root.name) + ("+" if git("status", "--porcelain") else "")


def modules(root: Path) -> dict[str, Path]:
    """Every module of the package by its installed name. The links in `bgaug/` are left out."""
    found = {}
    for folder, prefix in FOLDERS.items():
        for path in sorted((root / folder).rglob("*.py")):
            inside = path.relative_to(root / folder)
            if folder == "bgaug" and inside.parts[0] in FOLDERS:
                continue
            parts = [part for part in inside.with_suffix("").parts if part != "__init__"]
            found[".".join([prefix, *parts])] = path
    return found


def documents(root: Path) -> list[Path]:
    """The Markdown files that users read."""
    return [path for pattern in DOCUMENTS for path in sorted(root.glob(pattern))]


@cache
def read(path: Path) -> str:
    """The text of a file."""
    return path.read_text("utf-8")


@cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(read(path))


def room(module: str) -> str:
    """The package or module directly under bgaug that a module belongs to; empty for bgaug itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def measure(root: Path) -> dict[str, object]:
    """Every number of the table by its name."""
    return {**sizes(root), **definitions(root), **layout(root), **imports_table(root), **tests(root), **language(root)}


def sizes(root: Path) -> dict[str, object]:
    """Rooms, files, lines, and the biggest places."""
    found = modules(root)
    lines = {name: len(read(path).splitlines()) for name, path in found.items()}
    total = sum(lines.values())
    rooms: Counter[str] = Counter()
    folder_lines: Counter[str] = Counter()
    folder_files: Counter[str] = Counter()
    for name, path in found.items():
        rooms[room(name) or "bgaug"] += lines[name]
        folder = path.parent.relative_to(root).as_posix()
        folder_lines[folder] += lines[name]
        folder_files[folder] += 1
    (big, share), (long, most), (full, files) = (c.most_common(1)[0] for c in (rooms, folder_lines, folder_files))
    return {
        "top-level packages and modules of the library": len(set(rooms) - {"bgaug", "cli", "pipelines"}),
        "files of bgaug, pipelines, cli": len(found),
        "lines of them": f"{total:,}",
        "biggest room, share of all lines": f"{big}, {100 * share / total:.1f} %",
        "biggest folder by its own files, share": f"{long}, {100 * most / total:.1f} %",
        "fullest folder, files": f"{full}, {files}",
        "folders of more than 16 files": sum(number > 16 for number in folder_files.values()),
    }


def functions(root: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method, by `module:name`."""
    for module, path in modules(root).items():
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{module}:{node.name}", node


def definitions(root: Path) -> dict[str, object]:
    """Names, functions and their parameters."""
    names = sum(len(public_names(tree(path))) for path in modules(root).values())
    lengths, parameters = {}, {}
    for name, node in functions(root):
        lengths[name] = (node.end_lineno or node.lineno) - node.lineno + 1
        own = node.args
        named = [one for one in (*own.posonlyargs, *own.args, *own.kwonlyargs) if one.arg not in ("self", "cls")]
        parameters[name] = len(named) + bool(own.vararg) + bool(own.kwarg)
    ordered = sorted(lengths.values())
    longest, most = max(lengths, key=lengths.__getitem__), max(parameters, key=parameters.__getitem__)
    return {
        "public module-level names": names,
        "public names of `bgaug`": exported(root),
        "functions": len(ordered),
        "longest function, lines": f"{longest}, {lengths[longest]}",
        "functions of more than 60 lines": sum(length > 60 for length in ordered),
        "most parameters": f"{most}, {parameters[most]}",
        "functions of more than 10 parameters": sum(number > 10 for number in parameters.values()),
        "function lines, median / 90 %": f"{median(ordered):g} / {ordered[int(0.9 * len(ordered))]}",
    }


def public_names(module: ast.Module) -> set[str]:
    """Functions, classes and values that a module defines at its top level, without imports and `_names`."""
    found: set[str] = set()
    for node in module.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return {name for name in found if not name.startswith("_")}


def exported(root: Path) -> int:
    """How many names `bgaug.__all__` has."""
    command = [sys.executable, "-c", "import bgaug; print(len(bgaug.__all__))"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return int(done.stdout)


def layout(root: Path) -> dict[str, object]:
    """Long lines and comments."""
    code, comments = 0, 0
    for path in modules(root).values():
        of_code, of_comment = code_and_comment_lines(read(path))
        code, comments = code + of_code, comments + of_comment
    return {
        f"lines over {WIDTH} columns, code": len(list(long_lines(root, modules(root).values()))),
        f"lines over {WIDTH} columns, Markdown": len(list(long_lines(root, documents(root)))),
        "comment lines per line of code": f"{comments / code:.3f}",
    }


def code_and_comment_lines(text: str) -> tuple[int, int]:
    """How many lines hold code, docstrings not counted, and how many are a comment or end in one."""
    code: set[int] = set()
    comments: set[int] = set()
    blank = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}
    begins = True
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type in blank:
            begins = begins or token.type != tokenize.NL
        else:
            if not (begins and token.type == tokenize.STRING):
                code |= set(range(token.start[0], token.end[0] + 1))
            begins = False
    return len(code), len(comments)


def long_lines(root: Path, paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """`file:line` and text of every line that is too long."""
    for path in paths:
        for number, line in enumerate(read(path).splitlines(), 1):
            if len(line) > WIDTH:
                yield f"{path.relative_to(root).as_posix()}:{number}", line


def texts(root: Path) -> list[Path]:
    """All files whose language is measured."""
    return [*modules(root).values(), *documents(root)]


def uses(root: Path, word: str) -> Iterator[tuple[str, str]]:
    """`file:line` and text of every use of a house word."""
    for path in texts(root):
        text = read(path)
        lines = text.splitlines()
        for match in _PATTERNS[word].finditer(text):
            number = text.count("\n", 0, match.start()) + 1
            yield f"{path.relative_to(root).as_posix()}:{number}", lines[number - 1]


def rates(root: Path) -> dict[str, float]:
    """Uses of each house word per 10,000 words."""
    words = sum(len(read(path).split()) for path in texts(root))
    return {word: 1e4 * len(list(uses(root, word))) / words for word in HOUSE_WORDS}


def language(root: Path) -> dict[str, object]:
    """House words, most frequent first."""
    found = rates(root)
    over = {"house words at 1 or more per 10,000 words": sum(rate >= 1 for rate in found.values())}
    return over | {f"`{word}` per 10,000 words": f"{found[word]:.1f}" for word in HOUSE_WORDS}


def where(root: Path, word: str) -> Iterator[tuple[str, str]]:
    """All places of a house word, or of long lines."""
    if word == "long":
        return long_lines(root, texts(root))
    if word not in HOUSE_WORDS:
        raise SystemExit(f"expected long or one of {', '.join(HOUSE_WORDS)}; got {word!r}")
    return uses(root, word)


def imports_table(root: Path) -> dict[str, object]:
    """The graph of imports, between modules and between rooms."""
    at_top, everywhere = import_graph(root, inner=False), import_graph(root, inner=True)
    rooms: Graph = {}
    for module, others in everywhere.items():
        for other in others:
            if room(module) and room(other) and room(module) != room(other):
                rooms.setdefault(room(module), set()).add(room(other))
    return {
        "import arrows between rooms, cli and pipelines included": sum(map(len, rooms.values())),
        "circles of rooms": circles(rooms),
        "import arrows between modules": sum(map(len, everywhere.values())),
        "circles of modules, imports at the top only": circles(at_top),
        "circles of modules, imports in functions too": circles(everywhere),
        "longest chain of imports at the top, modules": len(longest_chain(at_top)),
        "longest chain, imports in functions too": len(longest_chain(everywhere)),
    }


def import_graph(root: Path, *, inner: bool) -> Graph:
    """Which modules a module imports: those it names, not the packages around them.

    Args:
        root: the checkout.
        inner: also imports in functions and under TYPE_CHECKING.
    """
    found = modules(root)
    graph: Graph = {}
    for module, path in found.items():
        names: set[str] = set()
        for node in ast.walk(tree(path)) if inner else top_level(tree(path).body):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inside = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= {name if name in found else node.module for name in inside}
        graph[module] = {name for name in names if name in found} - {module}
    # What bgaug itself loads are its lazy public names: no part of the order of the library.
    return {module: others - {"bgaug"} for module, others in graph.items() if module != "bgaug"}


def top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import, also those in `if` and `try`."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            yield from top_level([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from top_level([*node.body, *(part for handler in node.handlers for part in handler.body)])


def components(graph: Graph) -> list[list[str]]:
    """Strongly connected components; each comes after those that it imports (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            place = stack.index(node)
            found.append(stack[place:])
            del stack[place:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def circles(graph: Graph) -> str:
    """Number of components that import each other in a circle, and their members."""
    found = [sorted(part) for part in components(graph) if len(part) > 1]
    short = "; ".join(", ".join(name.removeprefix("bgaug.") for name in part) for part in found)
    return f"{len(found)} ({short})" if found else "0"


def longest_chain(graph: Graph) -> list[str]:
    """The longest chain of imports. A circle counts as all of its modules."""
    chains: dict[str, list[str]] = {}
    for part in components(graph):
        behind = [chains[other] for node in part for other in graph.get(node, ()) if other not in part]
        chain = part + max(behind, key=len, default=[])
        chains |= dict.fromkeys(part, chain)
    return max(chains.values(), key=len, default=[])


def tests(root: Path) -> dict[str, object]:
    """Files, lines and functions of the tests."""
    paths = sorted((root / "tests").rglob("*.py"))
    found = [
        node.name
        for path in paths
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    return {
        "test files": len(paths),
        "lines of tests": f"{sum(len(read(path).splitlines()) for path in paths):,}",
        "test functions": len(found),
    }


# A site module of this text begins the trace in every Python that inherits the environment, worker processes too.
_HOOK = """
import os, sys, threading
_FILE, _SEEN = os.open(os.environ["BGAUG_WALK"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), set()

def _enter(frame, event, _):
    code = frame.f_code
    if event != "call" or code in _SEEN:
        return
    name = frame.f_globals.get("__name__", "")
    if name == "__main__" and code.co_filename.endswith("cli/main.py"):
        name = "bgaug.cli.main"
    is_function = code.co_flags & 1 and not code.co_name.startswith("<") and code.co_filename != "<string>"
    if name.partition(".")[0] != "bgaug" or not is_function:
        _SEEN.add(code)
        return
    outer = frame.f_back
    while outer is not None:
        if outer.f_code.co_name == "<module>" and outer.f_globals.get("__name__") != "__main__":
            return  # part of an import
        outer = outer.f_back
    _SEEN.add(code)
    os.write(_FILE, f"{os.getpid()} {name}:{code.co_qualname}\\n".encode())

threading.setprofile(_enter)
sys.setprofile(_enter)
"""


def walks(root: Path) -> dict[str, list[str]]:
    """The functions that three jobs enter, each at its first call."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_videos(folder / "videos")
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(_HOOK, "utf-8")
        (folder / "one").mkdir()
        first = min((folder / "videos").rglob("*.avi"))
        first.rename(folder / "one" / first.name)
        one = walk(root, folder, "build-shards", "one", "--out", "one-store", "--jobs", "1")
        (folder / "one" / first.name).rename(first)
        walk(root, folder, "build-shards", "videos", "--out", "store", "--jobs", "1")
        quiet = ("--device", "cpu", "--threads", "0")
        small = ("--backbone", "tiny", "--crop", "32", "--batch-size", "2", *quiet)
        step = walk(root, folder, "train", "store", "--out", "run", "--steps", "1", "--frames", "8", *small)
        evaluation = walk(root, folder, "evaluate", "run", "store", "--protocol", "retrieval", *quiet)
        return {"build one video": one, "train one step": step, "evaluate one run": evaluation}


def walk(root: Path, folder: Path, command: str, *options: str) -> list[str]:
    """Run a command of the checkout; returns `module:function` of every function it enters, process by process."""
    trace = folder / f"{command}.txt"
    trace.unlink(missing_ok=True)
    words = [str(folder / word) if word in ("one", "one-store", "videos", "store", "run") else word for word in options]
    paths = os.pathsep.join([str(folder / "hook"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-m", "bgaug.cli.main", command, *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": paths, "BGAUG_WALK": str(trace)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{command} {' '.join(words)} left with {done.returncode}:\n{done.stderr[-2000:]}")
    of_process: dict[str, list[str]] = {}
    for line in trace.read_text("utf-8").splitlines():
        process, _, name = line.partition(" ")
        of_process.setdefault(process, []).append(name)
    return list(dict.fromkeys(name for names in of_process.values() for name in names))


def make_videos(folder: Path) -> None:
    """Four videos of two classes: a square goes to the right or down, over noise that stays."""
    import cv2
    import numpy as np

    for number in range(4):
        kind = ("down", "right")[number % 2]
        (folder / kind).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        scene = cv2.resize(rng.integers(0, 256, (12, 16, 3), np.uint8), (128, 96))
        writer = cv2.VideoWriter(str(folder / kind / f"{number}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (128, 96))
        for t in range(48):
            frame = scene.copy()
            y, x = (10 + t, 50) if kind == "down" else (40, 10 + 2 * t)
            frame[y : y + 24, x : x + 16] = (0, 0, 255)
            writer.write(frame)
        writer.release()


def show_walks(heads: list[str], columns: Sequence[Mapping[str, list[str]]]) -> None:
    """Print a table of the walks, then their lists."""
    rows = []
    for job in columns[-1]:
        for what, count in WALK_NUMBERS.items():
            rows.append([f"{job}: {what}", *(str(count(column[job])) for column in columns)])
    print(table(["", *heads], rows))
    for head, column in zip(heads, columns, strict=True):
        for job, entered in column.items():
            print(f"\n## {job}, {head}\n\nRooms: {' > '.join(rooms_in_order(entered))}\n")
            print("\n".join(f"- {name.removeprefix('bgaug.')}" for name in entered))


def rooms_in_order(entered: list[str]) -> list[str]:
    """The room of each function, repetitions in a row as one."""
    rooms = [room(name.partition(":")[0]) or "bgaug" for name in entered]
    return [here for place, here in enumerate(rooms) if place == 0 or rooms[place - 1] != here]


WALK_NUMBERS: dict[str, Callable[[list[str]], int]] = {
    "functions": len,
    "modules": lambda entered: len({name.partition(":")[0] for name in entered}),
    "rooms": lambda entered: len(set(rooms_in_order(entered))),
    "changes of room": lambda entered: len(rooms_in_order(entered)) - 1,
}

if __name__ == "__main__":
    main()
