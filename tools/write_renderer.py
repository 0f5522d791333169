"""Writes the chart renderer (Vega, Vega-Lite, Vega-Embed) as one script: write_renderer.py FILE.

Needs vl-convert-python, which carries the three libraries and bundles them without a network.
"""

import os
import sys

import vl_convert


def main():
    target = sys.argv[1]
    bundle = vl_convert.javascript_bundle()
    # The reports hold the script inside an HTML element, which the text "</script" would end.
    bundle = bundle.replace("</script", "<\\/script")
    if "vegaEmbed" not in bundle:
        sys.exit("the bundle does not define vegaEmbed")
    unfinished = target + ".tmp"
    with open(unfinished, "w", encoding="utf-8") as file:
        file.write(bundle)
    os.replace(unfinished, target)


if __name__ == "__main__":
    main()
