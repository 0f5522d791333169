"""Prints the size of each file whose address stands on standard input, one a line: bytes, or `unknown`.

Runs inside an environment that has pip and asks through pip's own session, so that certificates, proxies and
credentials are those of pip's configuration. Only headers are fetched.
"""

import sys

from pip._internal.cli import cmdoptions
from pip._internal.cli.req_command import IndexGroupCommand


def size_of(session, url):
    try:
        # Without it the length may be that of a compressed answer.
        reply = session.head(url, headers={"Accept-Encoding": "identity"}, allow_redirects=True)
        return int(reply.headers["Content-Length"]) if reply.status_code == 200 else None
    except Exception as error:  # whatever it is, the size stays unknown and the reason goes into the log
        print(f"{url.rsplit('/', 1)[-1]}: {error!r}", file=sys.stderr)
        return None


class Sizes(IndexGroupCommand):
    ignore_require_venv = True

    def add_options(self):
        group = cmdoptions.make_option_group(cmdoptions.index_group, self.parser)
        self.parser.insert_option_group(0, group)

    def run(self, options, args):
        session = self.get_default_session(options)
        for line in sys.stdin:
            size = size_of(session, line.strip())
            print("unknown" if size is None else size, flush=True)
        return 0


if __name__ == "__main__":
    sys.exit(Sizes("sizes", "sizes of files").main(["--disable-pip-version-check", *sys.argv[1:]]))
