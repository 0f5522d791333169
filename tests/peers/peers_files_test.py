"""The files of peers/ are what docs/peers.md says, and the check would notice if they were not.

Reads text alone: no library of any set needs to be installed.
"""

import ast
import contextlib
import os
import re
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("HEADWISE_SOURCE_DIR", Path(__file__).resolve().parents[2]))
LINE_LIMIT = 500
KNOWN_DEVICES = {"cpu", "cuda"}
ABSENT_NAME = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[a-z0-9,_-]+\])?([<>=!~]=?[0-9][0-9.a-z*]*,?)*")


def requirements(folder):
    """{set: names that its files may import}, and what is no plain requirement."""
    sets, breaches = {}, []
    for path in sorted((folder / "requirements").glob("*.txt")):
        names = sets.setdefault(path.stem, set())
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            text = line.split("#")[0].strip()
            match = REQUIREMENT.fullmatch(text)
            if match:
                names.add(match.group(1).replace("-", "_"))
            elif text:
                breaches.append(f"requirements/{path.name}:{number}: expected a package's name and versions, came '{text}'")
    return sets, breaches


def top_imports(tree):
    """(line, module) of what is imported as soon as the file is: everything outside of functions."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting.extend(ast.iter_child_nodes(node))


def libraries_of(parts, sets):
    """What a file may import at once beside the standard library, and where that is said."""
    if len(parts) > 1:
        return sets.get(parts[0], set()), f"requirements/{parts[0]}.txt"
    if parts[0] == "worker.py":
        return set(), "the standard library"
    return set.intersection(*sets.values()) if sets else set(), "every requirements/*.txt"


def python_breaches(folder, sets):
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).parts
        if "__pycache__" in parts:
            continue
        name, text = "/".join(parts), path.read_text(encoding="utf-8")
        try:
            tree = ast.parse(text, filename=name)
            compile(text, name, "exec")
        except SyntaxError as error:
            yield f"{name}:{error.lineno}: {error.msg}"
            continue
        if text.count("\n") > LINE_LIMIT:
            yield f"{name}: {text.count(chr(10))} lines: split it, the limit is {LINE_LIMIT}"
        if not (ast.get_docstring(tree) or "").strip():
            yield f"{name}:1: expected a docstring that says what this is"
        own, where = libraries_of(parts, sets)
        for line, module in top_imports(tree):
            library = module.split(".")[0]
            if library not in sys.stdlib_module_names and library not in own:
                yield f"{name}:{line}: imports {library}, which is not in {where}: not everybody who loads it has it"
        if len(parts) > 1 and not parts[-1].startswith("_"):
            yield from (f"{name}: {breach}" for breach in peer_breaches(tree))


def peer_breaches(tree):
    """What worker.py asks of a peer's file."""
    values, functions = {}, set()
    for node in tree.body:
        if isinstance(node, ast.Assign):
            with contextlib.suppress(ValueError):  # only what is written out can be read without running it
                value = ast.literal_eval(node.value)
                values.update((target.id, value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.FunctionDef):
            functions.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            functions.update(alias.asname or alias.name for alias in node.names)
    if not isinstance(values.get("ABOUT"), str):
        yield "expected ABOUT, a line for `headwise list --peers`"
    if values.get("THREADS") not in ("dynamic", "fixed"):
        yield f"THREADS: expected dynamic or fixed, came {values.get('THREADS')}"
    devices = values.get("DEVICES")
    # The program reads this line as text, to know whom a set means without starting Python.
    if not isinstance(devices, tuple) or not devices or not set(devices) <= KNOWN_DEVICES:
        yield f"expected DEVICES, a tuple of {', '.join(sorted(KNOWN_DEVICES))}; came {devices}"
    for function in {"describe", "prepare"} - functions:
        yield f"expected a function {function}"


def absent_breaches(folder):
    seen = set()
    for number, line in enumerate((folder / "absent.txt").read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#") or not line.strip():
            continue
        where, fields = f"absent.txt:{number}", [field.strip() for field in line.split("|")]
        if len(fields) != 4 or not all(fields):
            yield f"{where}: expected name | devices | reason | what would bring it, came {len(fields)} fields"
            continue
        name, devices = fields[0], {device.strip() for device in fields[1].split(",")}
        if not ABSENT_NAME.fullmatch(name) or name in seen:
            yield f"{where}: expected <set>.<name>, once, came '{name}'"
        elif (folder / (name.replace(".", "/") + ".py")).exists():
            yield f"{where}: {name} has a file: it is not absent"
        if not devices <= KNOWN_DEVICES:
            yield f"{where}: expected devices of {', '.join(sorted(KNOWN_DEVICES))}, came '{fields[1]}'"
        seen.add(name)


def breaches_of(folder):
    sets, breaches = requirements(folder)
    breaches += [*python_breaches(folder, sets), *absent_breaches(folder)]
    folders = {path.parent.name for path in folder.glob("*/[!_]*.py")}
    breaches += [f"{name}: no requirements/{name}.txt" for name in sorted(folders - sets.keys())]
    breaches += [f"requirements/{name}.txt: no peer in {name}/" for name in sorted(sets.keys() - folders)]
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".py", ".txt"} and "://" in path.read_text(encoding="utf-8"):
            breaches.append(f"{path.relative_to(folder)}: an address: where packages come from is pip's configuration")
    return breaches


PEER = """\"\"\"torch.flash: fused.\"\"\"
import math
import torch
ABOUT = "x"
DEVICES = ("cpu", "cuda")
THREADS = "dynamic"
def describe(threads):
    import numpy
def prepare(case): pass
"""
# A folder without a breach; each test breaks one thing in it.
SOUND = {
    "worker.py": '"""Runs a peer."""\nimport os\ndef load():\n    import numpy\n',
    "_arrays.py": '"""Arrays."""\nimport numpy\n',
    "torch/_shared.py": '"""Parts."""\ntry:\n    import torch\nexcept ImportError:\n    pass\nfrom .. import _case\n',
    "torch/flash.py": PEER,
    "requirements/torch.txt": "# why\ntorch>=2,<3\nnumpy\n",
    "absent.txt": "# what\nflash_attn.fa2 | cuda | not run | a run\n",
}


class Repository(unittest.TestCase):
    def test_keeps_the_rules(self):
        breaches = breaches_of(ROOT / "peers")
        self.assertEqual([], breaches, "\n" + "\n".join(breaches))

    def test_tools_compile_and_name_no_package_host(self):
        for path in (ROOT / "tools").glob("*peer*"):
            text = path.read_text(encoding="utf-8")
            self.assertNotRegex(text, r"https?://", path.name)
        for path in (ROOT / "tools").glob("*.py"):
            compile(path.read_text(encoding="utf-8"), path.name, "exec")


class Checker(unittest.TestCase):
    def breaches(self, changes):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in {**SOUND, **changes}.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            return breaches_of(Path(folder))

    def expect(self, expected, changes):
        breaches = self.breaches(changes)
        self.assertEqual(1, len(breaches), breaches)
        self.assertRegex(breaches[0], expected)

    def test_a_sound_folder_has_none(self):
        self.assertEqual([], self.breaches({}))

    def test_python(self):
        self.expect(r"^torch/flash.py:\d+: ", {"torch/flash.py": "def broken(:\n"})
        self.expect("docstring", {"torch/flash.py": PEER.split("\n", 1)[1]})
        self.expect(f"limit is {LINE_LIMIT}", {"torch/flash.py": PEER + "\n" * LINE_LIMIT})

    def test_imports(self):
        self.expect("imports jax, which is not in requirements/torch.txt", {"torch/flash.py": PEER + "import jax.numpy\n"})
        self.expect("imports jax", {"torch/flash.py": PEER + "if ABOUT:\n    from jax import jit\n"})
        self.expect("imports numpy, which is not in the standard library", {"worker.py": '"""Runs."""\nimport numpy\n'})

    def test_parts_of_a_peer(self):
        self.expect("expected ABOUT", {"torch/flash.py": PEER.replace("ABOUT", "TEXT")})
        self.expect("expected dynamic or fixed, came some", {"torch/flash.py": PEER.replace('"dynamic"', '"some"')})
        self.expect("expected DEVICES", {"torch/flash.py": PEER.replace(', "cuda"', ', "gpu"')})
        self.expect("expected DEVICES", {"torch/flash.py": PEER.replace('("cpu", "cuda")', "list_of(torch)")})
        self.expect("function prepare", {"torch/flash.py": PEER.replace("def prepare", "def make")})
        borrowed = PEER.replace("def describe", "from ._shared import describe\ndef other")
        self.assertEqual([], self.breaches({"torch/flash.py": borrowed}))

    def test_sets(self):
        self.expect("imports numpy, which is not in every", {"jax/_x.py": '"""x"""', "requirements/torch.txt": "torch\n"})
        self.expect("no requirements/jax.txt", {"jax/dot.py": PEER.replace("import torch\n", "")})
        self.expect("no peer in openvino/", {"requirements/openvino.txt": "openvino\nnumpy\n"})
        self.expect("expected a package's name", {"requirements/torch.txt": "torch\nnumpy\n--pre\n"})
        self.expect("an address", {"worker.py": '"""Runs a peer: see http://host/."""\n'})

    def test_absent(self):
        def absent(line):
            return {"absent.txt": line + "\n"}

        self.expect("came 3 fields", absent("flash_attn.fa2 | cuda | not run"))
        self.expect("came 4 fields", absent("flash_attn.fa2 | cuda | not run |"))
        self.expect("has a file", absent("torch.flash | cpu | not run | a run"))
        self.expect("expected devices", absent("flash_attn.fa2 | gpu | not run | a run"))
        self.expect("once", absent("a.b | cpu | not run | a run\na.b | cuda | not run | a run"))


if __name__ == "__main__":
    unittest.main()
