#!/usr/bin/env python3
"""Trains the small classifiers that others would use, on the rows that Kinglet's models see, and writes docs/peers.md and the columns
of peers in docs/results.md and docs/pretraining.md.

    tools/x research peers                                 what is missing in docs/results/peers, then the page and its figure
    tools/x research peers --task trec --peer tfidf-svc    one task, one peer; both may be given several times
    tools/x research peers --again                         also what is there already
    tools/x research peers --page                          the page and the figure alone, from the records

Peers: TF-IDF of words and characters with linear models, fastText and its quantized models, static embeddings distilled by model2vec with its
classifier and with regression, and the sentence encoder that they were distilled from, frozen, with regression. Settings are chosen on
training rows. Needs the data sets in $KINGLET_DATA; the Python environment is made on the first call (tools/x setup peers, about 6 GB).
A record holds accuracy, bytes, settings, versions and which dev texts were answered correctly. What is recorded is skipped, so
the program can be stopped at any time; vectors and fastText's grid are kept in runs/peers until their record is written.
"""
import argparse
import importlib
import os
import pathlib
import sys

import peer_page
import peer_rows
import pretrained
import results
from project import ROOT, printed, want, write

# Module and function that measure a family, and its peers.
FAMILIES = {
    ("peer_linear", "tfidf"): ["tfidf-svc", "tfidf-regression"],
    ("peer_embedding", "teacher"): ["teacher-regression"],
    ("peer_embedding", "static"): ["model2vec", "model2vec-regression", "model2vec-int8-regression"],
    ("peer_fasttext", "measure"): ["fasttext", "fasttext-3mb", "fasttext-1mb"],
}
PEERS = [peer for peers in FAMILIES.values() for peer in peers]


def enter():
    """Starts the program again in the environment of the peers, unless it runs there."""
    environment = pathlib.Path(printed("tools/x", "setup", "peers").strip())
    if pathlib.Path(sys.prefix).resolve() != environment.resolve():
        python = str(environment / "bin/python")
        os.execv(python, [python, *sys.argv])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", choices=peer_rows.TASKS, help="this task alone; may be given several times")
    parser.add_argument("--peer", action="append", choices=PEERS, help="this peer alone; may be given several times")
    parser.add_argument("--again", action="store_true", help="measure again what has a record")
    parser.add_argument("--page", action="store_true", help="write the page and the figure alone")
    args = parser.parse_args()
    os.chdir(ROOT)
    if not args.page:
        want(*(peer_rows.TASKS[task].data for task in args.task or peer_rows.TASKS))
    enter()
    for task in [] if args.page else args.task or peer_rows.TASKS:
        for (module, function), peers in FAMILIES.items():
            have = {} if args.again else peer_rows.records(task)
            if missing := [peer for peer in peers if peer not in have and peer in (args.peer or PEERS)]:
                for record in getattr(importlib.import_module(module), function)(task, missing):
                    peer_rows.keep(record)
    peer_page.write_page()
    importlib.import_module("peer_plot").write_figure()
    # Two other pages compare with the same records.
    write(ROOT / "docs/results.md", results.page())
    write(ROOT / pretrained.PAGE, pretrained.page())


if __name__ == "__main__":
    main()
