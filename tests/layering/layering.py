"""Who may include whom, and other promises that hold for source text.

    python3 tests/layering/layering.py [ROOT]      prints one line a breach; exits 1 when there are any

The rules are docs/design.md, sections 2 and 8. Reads text alone: nothing needs to be built.
"""

import re
import sys
from pathlib import Path

# Area -> areas whose headers it may include, beside its own and the public ones.
LAYERS = {
    "public": set(),
    "core": set(),
    "attention": {"core"},
    "oracle": {"core"},
    "layers": {"core"},
    "onnx": {"core"},
    "parallel": {"core"},
    "cpu": {"core", "attention"},
    "cuda": {"core", "attention"},
    "dispatch": {"core", "attention", "cpu", "cuda"},
    "lab": {"core", "attention", "oracle"},
    "cli": {"core", "lab"},
}

# Headers that CMake writes -> the areas that may include them. The build information changes with
# every commit, so the library, which would be linked anew each time, has the version alone.
GENERATED = {
    "headwise_version.h": {"core", "dispatch", "lab", "cli"},
    "headwise_build_info.h": {"lab"},
}

# First folder of another project's header -> areas that may include it, and the files if they are
# few: CLI11 and nlohmann-json cost 5 s a translation unit.
LIBRARIES = {
    "fmt": ({"lab", "cli"}, None),
    "CLI": ({"cli"}, 2),
    "nlohmann": ({"lab"}, {
        "src/lab/peers/messages.cpp",
        "src/lab/presets.cpp",
        "src/lab/rows_json.cpp",
        "src/lab/safetensors.cpp",
    }),
}

STANDARD = set(
    """algorithm any array atomic barrier bit bitset cassert cctype cerrno cfenv cfloat charconv chrono cinttypes
    climits clocale cmath compare complex concepts condition_variable coroutine csetjmp csignal cstdarg cstddef
    cstdint cstdio cstdlib cstring ctime cuchar cwchar cwctype deque exception execution filesystem format
    forward_list fstream functional future initializer_list iomanip ios iosfwd iostream istream iterator latch
    limits list locale map memory memory_resource mutex new numbers numeric optional ostream queue random ranges
    ratio regex scoped_allocator semaphore set shared_mutex source_location span sstream stack stdexcept
    stop_token streambuf string string_view strstream syncstream system_error thread tuple type_traits typeindex
    typeinfo unordered_map unordered_set utility valarray variant vector version""".split()
)
SYSTEM_FOLDERS = {"sys", "linux", "asm", "gnu"}

PARALLEL_FOR = "src/core/parallel_for.cpp"
LINE_LIMIT = 500
LINE_TOLERANCE = 50

INCLUDE = re.compile(r'^\s*#\s*include\s*(<[^>]+>|"[^"]+")')
OMP = re.compile(r"#\s*pragma\s+omp\b|_Pragma\s*\(\s*\"omp\b|\bomp_[a-z_]+\s*\(")
FLAG = re.compile(r"-m(avx|sse|fma|amx|arch|cpu|tune|f16c)|-ffast-math|-Ofast")
REGION_BEGIN = re.compile(r"^\s*HEADWISE_TARGET_BEGIN\b")
REGION_END = re.compile(r"^\s*HEADWISE_TARGET_END\b")
# Scalar types and nothing else of the standard library: its templates would be compiled for the
# baseline processor and called with vectors.
STD_IN_REGION = re.compile(r"\bstd::(?!u?int(8|16|32|64|ptr|max)_t\b|size_t\b|ptrdiff_t\b|byte\b|nullptr_t\b)(\w+)")
GUARD = re.compile(r"^\s*#\s*(pragma\s+once|ifndef\s+\w+_(H|INL|H_|INL_)\b)")
SNAKE = re.compile(r"^[a-z0-9_]+(\.[a-z0-9_]+)*$")


def without_comments(text):
    """The text with comments blanked, line numbers kept. Strings survive: includes are strings."""
    pattern = r'R"([^()\\ ]{0,16})\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/'

    def blank(match):
        found = match.group(0)
        if found.startswith("/"):
            return re.sub(r"[^\n]", " ", found)
        if found.startswith("R"):  # raw strings hold other languages' text
            return '""' + "\n" * found.count("\n")
        return found

    return re.sub(pattern, blank, text, flags=re.S)


class Checker:
    def __init__(self, root):
        self.root = Path(root)
        self.breaches = []
        self.cli11_users = []

    def breach(self, file, line, text):
        self.breaches.append(f"{file}:{line}: {text}" if line else f"{file}: {text}")

    def check(self):
        for path in self.files("include", "src"):
            self.check_file(path)
        limit = LIBRARIES["CLI"][1]
        for file, line in self.cli11_users[limit:]:
            self.breach(file, line, f"<CLI/...> in more than {limit} files: each costs 5 s to compile")
        for path in self.files("include", "src", "tests"):
            self.check_shape(path)
        self.check_kernels()
        self.check_build_files()
        return self.breaches

    def files(self, *folders):
        for folder in folders:
            for path in sorted((self.root / folder).rglob("*")):
                if path.suffix in {".h", ".cpp", ".inl", ".cu", ".cuh"} and path.is_file():
                    yield path

    def name(self, path):
        return path.relative_to(self.root).as_posix()

    @staticmethod
    def area(name):
        parts = name.split("/")
        if name.startswith("include/headwise/"):
            return "public"
        return parts[1] if parts[0] == "src" and len(parts) > 2 else None

    def check_file(self, path):
        name = self.name(path)
        area = self.area(name)
        if area not in LAYERS:
            self.breach(name, 0, f"no layer of docs/design.md: expected include/headwise or one of src/{{{', '.join(sorted(LAYERS.keys() - {'public'}))}}}")
            return
        text = without_comments(path.read_text(encoding="utf-8"))
        in_region = path.suffix == ".inl" and area == "cpu"
        for number, line in enumerate(text.split("\n"), start=1):
            if REGION_BEGIN.match(line):
                if in_region:
                    self.breach(name, number, "HEADWISE_TARGET_BEGIN inside a target region")
                in_region = True
            elif REGION_END.match(line):
                if not in_region:
                    self.breach(name, number, "HEADWISE_TARGET_END without a BEGIN")
                in_region = False
            include = INCLUDE.match(line)
            if include:
                self.check_include(path, area, number, include.group(1), in_region)
            elif in_region:
                foreign = STD_IN_REGION.search(line)
                if foreign:
                    self.breach(name, number, f"std::{foreign.group(2)} inside a target region: a template from outside is compiled for another instruction set")
            if name != PARALLEL_FOR and OMP.search(line):
                self.breach(name, number, f"OpenMP outside {PARALLEL_FOR}: call core::parallel_for")
            if path.suffix == ".inl" and GUARD.match(line):
                self.breach(name, number, "include guard in an .inl: it is text, taken in once a target region")
        if in_region and path.suffix != ".inl":
            self.breach(name, 0, "HEADWISE_TARGET_BEGIN without an END")

    def check_include(self, path, area, number, word, in_region):
        name, header = self.name(path), word[1:-1]
        if path.suffix == ".inl" and area == "cpu":
            self.breach(name, number, f"#include {word} in an .inl: it stands inside a target region of its includer")
        elif in_region and not header.endswith(".inl"):
            self.breach(name, number, f"#include {word} inside a target region: only .inl files may come in here")
        elif header.endswith(".inl") and area == "cpu" and not in_region and not name.startswith("src/cpu/scalar/"):
            self.breach(name, number, f"#include {word} outside a target region")
        if word[0] == "<":
            self.check_angle(path, area, number, header)
        else:
            self.check_quoted(path, area, number, header)

    def check_angle(self, path, area, number, header):
        name = self.name(path)
        top = header.split("/")[0]
        if header == "iostream" and path.suffix in {".h", ".cuh", ".inl"}:
            self.breach(name, number, "<iostream> in a header: <iosfwd> or a std::string will do")
        if header in STANDARD:
            return
        if area == "public":
            self.breach(name, number, f"<{header}> in a public header: they include the standard library alone")
        elif header == "omp.h":
            if name != PARALLEL_FOR:
                self.breach(name, number, f"<omp.h> outside {PARALLEL_FOR}: call core::parallel_for")
        elif header == "immintrin.h":
            if area not in {"cpu", "core"}:
                self.breach(name, number, "<immintrin.h> outside src/cpu and src/core")
        elif "/" in header and top not in SYSTEM_FOLDERS:
            areas, files = LIBRARIES.get(top, (set(), None))
            if area not in areas:
                self.breach(name, number, f"<{header}>: src/{area} does not use this library")
            elif isinstance(files, set) and name not in files:
                self.breach(name, number, f"<{header}>: only in {' and '.join(sorted(files))}")
            elif top == "CLI" and name not in [file for file, _ in self.cli11_users]:
                self.cli11_users.append((name, number))
        elif "/" not in header and not header.endswith(".h"):
            self.breach(name, number, f"<{header}> is no header of the standard library")

    def check_quoted(self, path, area, number, header):
        name = self.name(path)
        if header in GENERATED:
            if area not in GENERATED[header]:
                self.breach(name, number, f'"{header}": only in src/{", src/".join(sorted(GENERATED[header]))}')
            return
        target = None
        for base in (self.root / "include", self.root / "src", path.parent):
            if (base / header).is_file():
                target = (base / header).resolve().relative_to(self.root.resolve()).as_posix()
                break
        if target is None:
            self.breach(name, number, f'"{header}" is in neither include/, src/ nor this folder')
            return
        other = self.area(target)
        if other not in ("public", area) and other not in LAYERS[area]:
            allowed = ", ".join(sorted(LAYERS[area] | {"public"} - {area}))
            self.breach(name, number, f'"{header}": {area} may not include {other} (it may include {allowed})')

    def check_shape(self, path):
        name = self.name(path)
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > LINE_LIMIT + LINE_TOLERANCE:
            self.breach(name, 0, f"{lines} lines: split it, the limit is {LINE_LIMIT}")
        if not SNAKE.match(path.name):
            self.breach(name, 0, "file names are snake_case")

    def check_kernels(self):
        """The id is the path, and each kernel file is listed in its backend's kernels.cpp."""
        table = self.root / "src/cpu/kernels.cpp"
        if not table.is_file():
            return
        text = without_comments(table.read_text(encoding="utf-8"))
        listed = re.findall(r"&\s*(?:\w+::)*(k\w+)", text)
        symbols = set()
        # src/cpu/<isa>/<algorithm>/<dtype>.cpp
        for path in sorted((self.root / "src/cpu").glob("*/*/*.cpp")):
            name = self.name(path)
            kernel = name.removeprefix("src/").removesuffix(".cpp")
            symbol = "k" + "".join(word.capitalize() for word in re.split(r"[/_]", kernel.removeprefix("cpu/")))
            symbols.add(symbol)
            ids = re.findall(r'"(cpu/[a-z0-9_/]+)"', without_comments(path.read_text(encoding="utf-8")))
            if ids != [kernel]:
                self.breach(name, 0, f'expected the kernel id "{kernel}" once, found {", ".join(ids) or "none"}')
            if listed.count(symbol) != 1:
                self.breach("src/cpu/kernels.cpp", 0, f"{symbol} of {name} stands {listed.count(symbol)} times in the list, expected once")
        for symbol in listed:
            if symbol not in symbols:
                self.breach("src/cpu/kernels.cpp", 0, f"{symbol} has no file src/cpu/<isa>/<algorithm>/<dtype>.cpp")

    def check_build_files(self):
        paths = [self.root / "CMakeLists.txt", self.root / "CMakePresets.json", self.root / "tests/CMakeLists.txt"]
        for path in paths + sorted((self.root / "cmake").glob("*")):
            if not path.is_file():
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
                flag = FLAG.search(line.split("#")[0])
                if flag:
                    self.breach(self.name(path), number, f"{flag.group(0)}: instruction sets come by target region, and arithmetic stays IEEE")


def main():
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    breaches = Checker(root).check()
    for breach in breaches:
        print(breach)
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
