"""Draws the report's charts as files: draw_charts.py SCRIPT VIEW SVG_FOLDER PNG_FOLDER; an empty folder: none.

SCRIPT is the page's own JavaScript with its data, whose chart_files(VIEW) gives each chart as a Vega-Lite
specification; quickjs runs it, vl-convert draws. Prints a line a file. A chart that cannot be drawn is named on stderr,
the others are still drawn, and the exit status is 1.
"""

import json
import os
import sys

import quickjs
import vl_convert

PNG_SCALE = 2


def write(folder, name, content):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    unfinished = path + ".tmp"
    with open(unfinished, "wb") as file:
        file.write(content)
    os.replace(unfinished, path)
    print(path)


def reason(problem):
    """The line of the converter's message that says what was wrong: the first after its own, without the places."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return next((line for line in lines if "Error" in line), lines[0] if lines else "no reason given")


def main():
    script, view, svg, png = sys.argv[1:]
    with open(script, encoding="utf-8") as file:
        text = file.read()
    made = json.loads(quickjs.Context().eval(f"{text}\nchart_files({json.dumps(view)})"))
    problems = made["problems"]
    for chart in made["files"]:
        try:
            # No address may be read: a chart is drawn from the rows alone.
            if svg:
                write(svg, chart["name"] + ".svg", vl_convert.vegalite_to_svg(chart["spec"], allowed_base_urls=[]).encode())
            if png:
                write(png, chart["name"] + ".png", vl_convert.vegalite_to_png(chart["spec"], scale=PNG_SCALE, allowed_base_urls=[]))
        except ValueError as problem:  # the converter's for a specification that it cannot draw
            problems.append(f"{chart['name']}: {reason(problem)}")
    for problem in problems:
        print(f"headwise: {problem}", file=sys.stderr)
    if not made["files"]:
        print("headwise: no row of this run can be drawn: none ran and passed its check, or the view leaves none", file=sys.stderr)
    sys.exit(1 if problems or not made["files"] else 0)


if __name__ == "__main__":
    try:
        main()
    except OSError as problem:
        sys.exit(f"headwise: {problem}")
