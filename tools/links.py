#!/usr/bin/env python3
"""Checks that links, anchors and paths in the Markdown files lead somewhere.

    tools/links.py

Every relative link must lead to a file, every anchor to a heading, and every path in backticks that begins with a folder of the project to a
file or folder. The changelog may name what is gone. Prints what is broken; exit code 1 if anything is.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Notes that scripts paste into pages of docs/, so that their links start there.
PASTED = {ROOT / "docs/results/notes.md", ROOT / "docs/results/pretraining-notes.md"}


def prose(path):
    """The text of a page without its code."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace("](", "] ("), text)


def paths(path):
    """The paths in backticks that begin with a folder of the project; `{a,b}` and `*` are patterns."""
    folders = {item.name for item in ROOT.iterdir() if item.is_dir()}
    for word in re.findall(r"`([A-Za-z0-9._-]+/[^`\s]*)`", re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)):
        if word.split("/")[0] in folders and not re.search(r"[A-Z]{4}|/target/|^(runs|target)/", word):
            heads = re.fullmatch(r"(.*)\{(.*)\}(.*)", word)
            yield word, [heads[1] + part + heads[3] for part in heads[2].split(",")] if heads else [word]


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def main():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)
    pages = [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    count, broken = 0, []
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            if "://" in link or link.startswith("mailto:"):
                continue
            count += 1
            name, _, anchor = link.partition("#")
            folder = ROOT / "docs" if page in PASTED else page.parent
            target = folder / name if name else page
            if not target.exists() or anchor and anchor not in anchors(target):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
        for word, names in paths(page) if page.name != "CHANGELOG.md" else []:
            count += 1
            if not all(any(ROOT.glob(name)) for name in names):
                broken.append(f"{page.relative_to(ROOT)}: {word}")
    for link in broken:
        print(f"broken: {link}", file=sys.stderr)
    if not broken:
        print(f"links and paths: {count} in {len(pages)} pages lead somewhere")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
