"""unittest_verdicts.py RANKS FOLDER: reads what unittest -v has written into FOLDER/rank.0, rank.1, … and prints a line
"pass NAME" or "fail NAME" for each test. A test has passed when every rank has run or skipped it without a failure."""

import pathlib
import re
import sys

BEGIN = re.compile(r"^(\S+ \([\w.]+\))(?:\n[^\n]*?)? \.\.\. ", re.MULTILINE)
VERDICT = re.compile(r"(ok|skipped .*|expected failure|FAIL|ERROR|unexpected success)$", re.MULTILINE)


def verdicts(text):
    """The verdict on each test of one rank: the first one that ends a line between its beginning and the next test's."""
    found = {}
    begins = list(BEGIN.finditer(text))
    for this, following in zip(begins, [*begins[1:], None]):
        verdict = VERDICT.search(text, this.end(), following.start() if following else len(text))
        found[this[1].replace(" ", "")] = bool(verdict) and not verdict[1].startswith(("FAIL", "ERROR", "unexpected"))
    return found


def main():
    ranks, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
    texts = [folder / f"rank.{rank}" for rank in range(ranks)]
    each = [verdicts(path.read_text(errors="replace")) if path.exists() else {} for path in texts]
    for name in sorted(set().union(*each)):
        print("pass" if all(rank.get(name, False) for rank in each) else "fail", name)


main()
