"""Makes build/peers/<set>, the Python environments of other people's attention; tools/peers.sh calls it.

An environment counts as made when its complete.json has the hash of the set's requirements and the Python
version, and every file that was installed is there. Its bin/python, by which the program finds it, is linked
last: an environment that was cut off is none. Standard library only.
"""

import argparse
import fcntl
import hashlib
import json
import os
import platform
import queue
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "peers"
ENVIRONMENTS = ROOT / "build/peers"
STATE = ROOT / "build/setup"
# From here on `--dry-run` learns what a wheel needs without fetching it; older ones fetch all of it.
PIP = "pip>=26,<27"
PIP_ENVIRONMENT = STATE / "peers-pip"
PIP_OPTIONS = ["--disable-pip-version-check", "--no-input"]
STAMP = "complete.json"


class Failed(Exception):
    """What went wrong with one set, for people."""


def say(text):
    print(f"peers: {text}", flush=True)


def shown(path):
    return path.relative_to(ROOT)


def size_text(size):
    for unit, scale, digits in (("GB", 1e9, 2), ("MB", 1e6, 1)):
        if size >= scale:
            return f"{size / scale:.{digits}f} {unit}"
    return f"{size / 1e3:.0f} kB"


def requirements_of(name):
    return PEERS / "requirements" / f"{name}.txt"


def known_sets():
    return sorted(path.stem for path in (PEERS / "requirements").glob("*.txt"))


def chosen_sets(words):
    """`torch,jax`, `torch jax` and `torch.flash` all name sets; no word names them all."""
    known, chosen = known_sets(), []
    for word in " ".join(words).replace(",", " ").split():
        name = word.split(".")[0]
        if name not in known:
            print(f"peers: no set '{word}': expected {', '.join(known)} (peers/requirements)", file=sys.stderr)
            sys.exit(2)
        if name not in chosen:
            chosen.append(name)
    return chosen or known


# --- what is there --------------------------------------------------------------------------------------------


def recipe(name):
    """What an environment is made from: where it differs, the environment is made anew."""
    digest = hashlib.sha256(requirements_of(name).read_bytes()).hexdigest()
    return {"requirements_sha256": digest, "python": platform.python_version()}


def site_packages(environment):
    return environment / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def missing_file(environment):
    """The first file that was installed and is gone; compiled files may come and go."""
    records = list(site_packages(environment).glob("*.dist-info/RECORD"))
    for record in records:
        base = str(record.parents[1])
        for line in record.read_text(encoding="utf-8").splitlines():
            file = line.rsplit(",", 2)[0].strip('"')
            if not file.endswith(".pyc") and not os.path.exists(os.path.join(base, file)):
                return file
    return None if records else "site-packages/*.dist-info/RECORD"


def python_of(environment):
    """The version that the environment's Python says it is, or None where it does not start."""
    command = [environment / "bin/python", "-I", "-c", "import platform; print(platform.python_version())"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def why_not_complete(name):
    """None where the environment is whole; else the reason to make it (empty where there is none yet)."""
    environment = ENVIRONMENTS / name
    if not environment.is_dir():
        return ""
    try:
        stamp = json.loads((environment / STAMP).read_text(encoding="utf-8"))
        made_from = {key: stamp[key] for key in recipe(name)}
    except (OSError, ValueError, KeyError, TypeError):
        return "it was not finished"
    if made_from != recipe(name):
        return "its requirements or this machine's Python changed"
    if python_of(environment) != stamp["python"]:
        return "its Python does not start"
    missing = missing_file(environment)
    return f"{missing} is gone" if missing else None


def show_environment(name):
    environment = ENVIRONMENTS / name
    stamp = json.loads((environment / STAMP).read_text(encoding="utf-8"))
    say(f"{name}: ready in {shown(environment)}, {size_text(stamp['bytes'])} on disk")
    worker = PEERS / "worker.py"
    described = describe(environment, worker, name) if worker.is_file() else []
    for line in described or [", ".join(f"{package} {version}" for package, version in stamp["versions"].items())]:
        say(f"  {line}")


def describe(environment, worker, name):
    """A line for each peer of the set: its versions and devices, or why it is absent."""
    command = [environment / "bin/python", "-B", worker, "--describe", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"worker.py --describe {name} did not answer: {error}"]
    lines = []
    for text in done.stdout.splitlines():
        try:
            hello = json.loads(text)
            if hello["status"] == "ok":
                what = f"{hello['version']} on {', '.join(hello['devices']) or 'no device here'}; {', '.join(hello['dtypes'])}"
            else:
                what = f"{hello['status']}: {hello['reason']}"
            lines.append(f"{hello['peer']}: {what}")
        except (ValueError, KeyError, TypeError):
            lines.append(f"worker.py --describe {name} said what is no hello: {text[:100]}")
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing on stderr"]
        lines.append(f"worker.py --describe {name} ended with {done.returncode}: {last[0]}")
    return lines


# --- pip ------------------------------------------------------------------------------------------------------


def pip_failure(log, text):
    """What pip's last error was, and whether nobody answered it."""
    errors = re.findall(r"^ERROR: (.+)$", text, re.M)
    said = errors[-1] if errors else "it says no reason"
    if re.search(r"WARNING: Retrying|Connection|timed out|Temporary failure|Name or service", text):
        return Failed(f"no package index answered (pip: {said}). This step needs a network. The index that is "
                      f"asked is pip's own configuration (pip config list). Log: {shown(log)}")
    return Failed(f"pip failed: {said}. Log: {shown(log)}")


def run_logged(command, log, **options):
    with open(log, "a", encoding="utf-8") as file:
        file.write("$ " + " ".join(str(word) for word in command) + "\n")
        file.flush()
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, **{"stdin": subprocess.DEVNULL, **options})
        file.write(done.stdout)
    return done


def new_environment(folder, log, with_pip):
    remove(folder)
    command = [sys.executable, "-m", "venv", *([] if with_pip else ["--without-pip"]), folder]
    done = run_logged(command, log)
    if done.returncode != 0:
        remove(folder)
        raise Failed(f"{sys.executable} -m venv failed: install the package python3-venv. Log: {shown(log)}")


def remove(folder):
    # The name goes first, so that nobody meets half of it.
    if folder.exists() or folder.is_symlink():
        aside = folder.with_name(f".{folder.name}.removing")
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
        shutil.rmtree(aside)


def prepare_pip():
    """A pip of our own, outside the environments: theirs need none, and the system's may be too old."""
    stamp, log = PIP_ENVIRONMENT / "complete", STATE / "peers-pip.log"
    wanted = f"{PIP} {platform.python_version()}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and python_of(PIP_ENVIRONMENT):
        return
    log.unlink(missing_ok=True)
    say(f"fetching {PIP}, which can tell sizes beforehand")
    new_environment(PIP_ENVIRONMENT, log, with_pip=True)
    command = [PIP_ENVIRONMENT / "bin/python", "-m", "pip", "install", *PIP_OPTIONS, "--retries", "1", "--upgrade"]
    done = run_logged([*command, "--only-binary", ":all:", PIP], log)
    if done.returncode != 0:
        raise pip_failure(log, done.stdout)
    stamp.write_text(wanted, encoding="utf-8")


def plan(name, log):
    """The wheels that would be fetched: [{name, version, sha256, size or None}], largest first."""
    report = STATE / f"peers-{name}.json"
    report.unlink(missing_ok=True)
    command = [PIP_ENVIRONMENT / "bin/python", "-m", "pip", "install", *PIP_OPTIONS, "--retries", "1", "--dry-run",
               "--use-feature=fast-deps", "--ignore-installed", "--only-binary", ":all:", "--report", report,
               "--requirement", requirements_of(name)]
    done = run_logged(command, log)
    if done.returncode != 0:
        raise pip_failure(log, done.stdout)
    wheels, urls = [], []
    for entry in json.loads(report.read_text(encoding="utf-8"))["install"]:
        download = entry["download_info"]
        wheels.append({"name": entry["metadata"]["name"], "version": entry["metadata"]["version"],
                       "sha256": download["archive_info"].get("hashes", {}).get("sha256")})
        urls.append(download["url"])
    for wheel, size in zip(wheels, sizes_of(urls, log)):
        wheel["size"] = size
    return sorted(wheels, key=lambda wheel: -(wheel["size"] or 0))


def sizes_of(urls, log):
    local = [urllib.parse.unquote(url[len("file://"):]) if url.startswith("file://") else None for url in urls]
    asked = [url for url, path in zip(urls, local) if path is None]
    done = subprocess.run([PIP_ENVIRONMENT / "bin/python", ROOT / "tools/wheel_sizes.py", "--retries", "1"],
                          input="".join(url + "\n" for url in asked), capture_output=True, text=True)
    with open(log, "a", encoding="utf-8") as file:
        file.write(done.stderr)
    answers = [int(word) if word.isdigit() else None for word in done.stdout.split()]
    if len(answers) != len(asked):
        answers = [None] * len(asked)
    remaining = iter(answers)
    return [next(remaining) if path is None else os.path.getsize(path) for path in local]


def show_plan(name, wheels, reason):
    known = [wheel["size"] for wheel in wheels if wheel["size"] is not None]
    unknown = len(wheels) - len(known)
    total = size_text(sum(known)) if known else "size unknown"
    if known and unknown:
        total += f", and {unknown} of unknown size"
    why = f" ({shown(ENVIRONMENTS / name)} is made anew: {reason})" if reason else ""
    say(f"{name}: {len(wheels)} wheel{'' if len(wheels) == 1 else 's'}, {total}{why}")
    words = []
    for wheel in wheels:
        size = "size unknown" if wheel["size"] is None else size_text(wheel["size"])
        # A wheel's three words stay on one line.
        words.append(f"{wheel['name']} {wheel['version']} {size}".replace(" ", "\0"))
    for line in textwrap.wrap(", ".join(words), 96, break_on_hyphens=False):
        say("  " + line.replace("\0", " "))


# --- making one -----------------------------------------------------------------------------------------------


class Progress:
    """How much is fetched, in one line: on a terminal rewritten, elsewhere a new one every ten seconds."""

    def __init__(self, name, wheels):
        self.name, self.total = name, sum(wheel["size"] or 0 for wheel in wheels)
        self.fetched = self.current = 0
        self.doing, self.last = "", time.monotonic()
        self.begin, self.terminal = time.monotonic(), sys.stdout.isatty()

    def take(self, line):
        """Whether the line was progress and nothing for the log."""
        counted = re.match(r"Progress (\d+) of (\d+)", line)
        if counted:
            self.current = int(counted.group(1))
        elif found := re.match(r"\s*(?:Downloading|Using cached) (?:\S*/)?([A-Za-z0-9_.]+)-", line):
            self.fetched, self.current = self.fetched + self.current, 0
            self.doing = found.group(1)
        elif line.startswith("Installing collected packages"):
            # Wheels too small for a bar of progress are now here too.
            self.fetched, self.current, self.doing = self.total, 0, "unpacking"
            self.last = 0
        self.show()
        return counted is not None

    def show(self):
        now = time.monotonic()
        if now - self.last < (0.3 if self.terminal else 10):
            return
        self.last = now
        text = (f"peers: {self.name}: {size_text(self.fetched + self.current)} of {size_text(self.total)} fetched, "
                f"{now - self.begin:.0f} s: {self.doing}")
        print(f"\r\033[K{text[:100]}" if self.terminal else text, end="" if self.terminal else "\n", flush=True)

    def end(self):
        if self.terminal:
            print("\r\033[K", end="", flush=True)


def spoken(stream):
    """Its lines, and None after each second without one: pip says nothing while it unpacks, which takes minutes."""
    lines = queue.SimpleQueue()

    def read():
        with stream:
            for line in stream:
                lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            yield None
            continue
        if not line:
            return
        yield line


def write_pins(environment, wheels):
    """pip wants a hash of each wheel or of none."""
    hashed = all(wheel["sha256"] for wheel in wheels)
    pins = environment / "wheels.txt"
    with open(pins, "w", encoding="utf-8") as file:
        for wheel in wheels:
            digest = f" --hash=sha256:{wheel['sha256']}" if hashed else ""
            file.write(f"{wheel['name']}=={wheel['version']}{digest}\n")
    return pins


def install(name, wheels, log, lock):
    """Exactly the wheels of the plan, by hash."""
    environment = ENVIRONMENTS / name
    new_environment(environment, log, with_pip=False)
    # Until the last step nobody finds a Python here.
    interpreter = environment / "bin/python3"
    for link in environment.glob("bin/python*"):
        link.unlink()
    interpreter.symlink_to(os.path.realpath(sys.executable))
    # What `pip --python` runs; called by itself it leaves no grandchild behind when this process is killed.
    runner = site_packages(PIP_ENVIRONMENT) / "pip/__pip-runner__.py"
    command = [interpreter, runner, "install", *PIP_OPTIONS, "--no-deps", "--only-binary", ":all:",
               "--progress-bar", "raw", "--no-warn-script-location", "--requirement", write_pins(environment, wheels)]
    # The child holds the lock too: a pip that outlives this process keeps the next run waiting.
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             text=True, stdin=subprocess.DEVNULL, pass_fds=[lock.fileno()],
                             env={**os.environ, "PYTHONUNBUFFERED": "1"})
    progress, lines = Progress(name, wheels), []
    try:
        with open(log, "a", encoding="utf-8") as file:
            for line in spoken(child.stdout):
                if line is None:
                    progress.show()
                elif not progress.take(line):
                    lines.append(line)
                    file.write(line)
    finally:
        progress.end()
        if child.poll() is None and sys.exc_info()[0] is not None:
            child.terminate()
        child.wait()
    if child.returncode != 0:
        raise pip_failure(log, "".join(lines))


def finish(name):
    environment = ENVIRONMENTS / name
    missing = missing_file(environment)
    if missing:
        raise Failed(f"pip ended well, but {missing} is not there: run make peers again")
    versions = {}
    for line in requirements_of(name).read_text(encoding="utf-8").splitlines():
        package = re.match(r"[A-Za-z0-9_.-]+", line.split("#")[0].strip())
        if package:
            versions[package.group(0)] = installed_version(environment, package.group(0))
    size = sum(os.lstat(os.path.join(folder, file)).st_blocks * 512
               for folder, _, files in os.walk(environment) for file in files)
    stamp = {**recipe(name), "versions": versions, "bytes": size}
    (environment / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    (environment / "bin/python").symlink_to("python3")


def installed_version(environment, package):
    def plain(text):
        return re.sub(r"[-_.]+", "_", text).lower()

    for folder in site_packages(environment).glob("*.dist-info"):
        name, _, version = folder.name[: -len(".dist-info")].rpartition("-")
        if plain(name) == plain(package):
            return version
    raise Failed(f"pip ended well, but {package} is not installed: run make peers again")


def make(name, wheels, lock):
    log, begin = STATE / f"peers-{name}.log", time.monotonic()
    try:
        install(name, wheels, log, lock)
        finish(name)
    except BaseException:
        remove(ENVIRONMENTS / name)
        raise
    say(f"{name}: installed in {time.monotonic() - begin:.0f} s")


# --- all of them ----------------------------------------------------------------------------------------------


def plan_all(pending, failed):
    """Plans of the sets that can be had, shown; those that cannot are added to `failed`."""
    plans = {}
    try:
        prepare_pip()
    except Failed as error:
        say(f"{', '.join(pending)}: {error}")
        failed += pending
        return plans
    for name, reason in pending.items():
        log = STATE / f"peers-{name}.log"
        log.unlink(missing_ok=True)
        try:
            plans[name] = plan(name, log)
            show_plan(name, plans[name], reason)
        except Failed as error:
            say(f"{name}: {error}")
            failed.append(name)
    if plans:
        sizes = [wheel["size"] for wheels in plans.values() for wheel in wheels]
        known = [size for size in sizes if size is not None]
        total = size_text(sum(known)) if known else "size unknown"
        beyond = f" and {len(sizes) - len(known)} wheels of unknown size" if known and len(known) < len(sizes) else ""
        say(f"to fetch in all: {total}{beyond}; free on this disk: {size_text(shutil.disk_usage(ROOT).free)}")
    return plans


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--dry-run", action="store_true", help="only say what would be fetched, with sizes")
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(known_sets())} (default: all)")
    options = parser.parse_args()
    names = chosen_sets(options.sets)
    # Ends by way of the clean-up, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    STATE.mkdir(parents=True, exist_ok=True)
    with open(STATE / "peers.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another make peers is running: waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        pending = {name: reason for name in names if (reason := why_not_complete(name)) is not None}
        failed = []
        plans = plan_all(pending, failed) if pending else {}
        for name in [] if options.dry_run else names:
            try:
                if name in plans:
                    make(name, plans[name], lock)
                if name not in failed:
                    show_environment(name)
            except Failed as error:
                say(f"{name}: {error}")
                failed.append(name)
    if options.dry_run and not pending:
        say(f"nothing to fetch: {', '.join(names)} complete")
    if failed:
        print(f"peers: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\npeers: interrupted; what was half made is removed", file=sys.stderr)
        sys.exit(130)
