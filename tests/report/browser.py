"""A headless Chromium, driven over its debugging pipe with the standard library alone.

    with Browser(CHROMIUM) as browser:
        page = browser.open(path_of_an_html_file)
        page.run("return document.title")

Waiting is for events of the browser and promises of the page, never for time to pass. A page keeps what the console
said, what threw and what was requested.
"""

import base64
import contextlib
import fcntl
import json
import os
import queue
import signal
import tempfile
import threading

TIMEOUT = 60  # of a single answer, in seconds: only ever reached when something hangs


class Browser:
    def __init__(self, program):
        self.profile = tempfile.TemporaryDirectory(prefix="headwise_chromium_", ignore_cleanup_errors=True)
        # Above 9, so that neither is in the way of 3 and 4, which the browser reads from and writes to.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pair in (os.pipe(), os.pipe()) for end in self.moved(pair)]
        to_read, self.to, self.answers, to_write = ends
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--mute-audio",
                   "--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-sync",
                   "--disable-component-update", "--force-color-profile=srgb", "--hide-scrollbars",
                   f"--user-data-dir={self.profile.name}", "--remote-debugging-pipe", "about:blank"]
        self.log = open(os.path.join(self.profile.name, "stderr.txt"), "w+b")
        self.process = os.posix_spawn(program, command, os.environ, setpgroup=0, file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, self.log.fileno(), 1), (os.POSIX_SPAWN_DUP2, self.log.fileno(), 2),
            (os.POSIX_SPAWN_DUP2, to_read, 3), (os.POSIX_SPAWN_DUP2, to_write, 4)])
        os.close(to_read)
        os.close(to_write)
        self.count, self.waiting, self.pages = 0, {}, {}
        self.lock = threading.Lock()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    @staticmethod
    def moved(pair):
        """Yields the ends of a pipe; each is closed once its copy was made."""
        for end in pair:
            yield end
            os.close(end)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        with contextlib.suppress(OSError, RuntimeError):
            self.call("Browser.close")
        self.reader.join(20)  # the browser closes its end when it goes
        if self.reader.is_alive():
            os.killpg(self.process, signal.SIGKILL)
            self.reader.join()
        os.waitpid(self.process, 0)
        os.close(self.to)
        os.close(self.answers)
        self.log.close()
        self.profile.cleanup()

    def read(self):
        rest = b""
        while True:
            try:
                piece = os.read(self.answers, 1 << 16)
            except OSError:
                piece = b""
            if not piece:
                break
            *messages, rest = (rest + piece).split(b"\0")
            for message in messages:
                self.take(json.loads(message))
        for box in list(self.waiting.values()):
            box.put({"error": {"message": f"the browser ended: {self.last_words()}"}})

    def last_words(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()[-2000:].decode(errors="replace")

    def take(self, message):
        if "id" in message:
            box = self.waiting.pop(message["id"], None)
            if box:
                box.put(message)
        elif message.get("sessionId") in self.pages:
            self.pages[message["sessionId"]].take(message["method"], message["params"])

    def call(self, method, session=None, **parameters):
        box = queue.Queue()
        with self.lock:
            self.count += 1
            number = self.count
            self.waiting[number] = box
            text = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
            data = json.dumps(text).encode() + b"\0"
            while data:
                data = data[os.write(self.to, data):]
        try:
            answer = box.get(timeout=TIMEOUT)
        except queue.Empty:
            raise RuntimeError(f"{method}: no answer within {TIMEOUT} s: {self.last_words()}") from None
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def open(self, path, width=1280, height=900, dark=False, fragment=""):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, target, session)
        page.start(width, height, dark)
        page.go(path.as_uri() + fragment)
        return page


class Page:
    def __init__(self, browser, target, session):
        self.browser, self.target, self.session = browser, target, session
        self.console, self.requests, self.loaded = [], [], queue.Queue()

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def take(self, method, parameters):
        if method == "Runtime.consoleAPICalled":
            words = [str(word.get("value", word.get("description"))) for word in parameters["args"]]
            self.console.append(f"{parameters['type']}: {' '.join(words)}")
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.console.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
        elif method == "Log.entryAdded":
            entry = parameters["entry"]
            self.console.append(f"{entry['level']}: {entry['text']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded.put(True)

    def start(self, width, height, dark):
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        # Nothing leaves this machine whatever a page tries; the attempt is in `requests`.
        self.call("Network.setBlockedURLs", urls=["http://*", "https://*", "ws://*", "wss://*"])
        self.size(width, height)
        self.scheme(dark)

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)

    def scheme(self, dark):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def go(self, address):
        self.call("Page.navigate", url=address)
        self.loaded.get(timeout=TIMEOUT)
        self.settle()

    def settle(self):
        """Until the page says that nothing is being drawn."""
        self.run("""
            while (document.body.dataset.ready !== "1") {
              await new Promise((done) => {
                const observer = new MutationObserver(() => { observer.disconnect(); done(); });
                observer.observe(document.body, {attributes: true});
                if (document.body.dataset.ready === "1") done();
              });
            }""")

    def run(self, body):
        """Runs the body of an async function in the page; returns what it returns."""
        answer = self.call("Runtime.evaluate", expression=f"(async () => {{ {body} }})()", awaitPromise=True,
                           returnByValue=True, userGesture=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def act(self, body):
        """run(), then until all is drawn."""
        value = self.run(body)
        self.settle()
        return value

    def click(self, x, y):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="none" if kind == "mouseMoved" else "left",
                      clickCount=0 if kind == "mouseMoved" else 1)
        self.settle()

    def press(self, key, code=None, text=None):
        more = {"text": text} if text else {}
        number = {"Enter": 13, "Tab": 9, "Escape": 27, " ": 32}[key]
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, windowsVirtualKeyCode=number,
                      **(more if kind == "keyDown" else {}))
        self.settle()

    def picture(self):
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self):
        self.browser.call("Target.closeTarget", targetId=self.target)
        self.browser.pages.pop(self.session, None)
