#!/usr/bin/env python3
"""Checks that every relative link of the Markdown files leads to a file, and every anchor to a heading.

    tools/links.py

Needs Python alone. Prints each broken link; exit code 1 if there is one.
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
    for link in broken:
        print(f"broken link: {link}", file=sys.stderr)
    if not broken:
        print(f"links: {count} in {len(pages)} pages lead somewhere")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
