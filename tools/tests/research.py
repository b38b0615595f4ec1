#!/usr/bin/env python3
"""Tests the pure parts of research/: which rows are drawn, paired intervals, and that committed pages say what the records say.

    tools/x test research

Needs Python 3.10 or newer and zstd, nothing else. Exit code 0 when all passed, 1 when a test failed.
"""
import json
import os
import re
import sys
import unittest

import project

sys.path.insert(0, str(project.ROOT / "research"))
import ablation  # noqa: E402
import confidence  # noqa: E402
import languages  # noqa: E402
import multilabel  # noqa: E402
import paired  # noqa: E402
import peer_page  # noqa: E402
import peer_rows  # noqa: E402
import pretrained  # noqa: E402
import results  # noqa: E402
import tasks  # noqa: E402

# Three seeds of one model and two of another on 40 texts, drawn by NumPy 2.4.6: default_rng(3).random((3, 40)) < 0.8, then (2, 40) < 0.6.
OURS = ["1101111111111110111110110111111110111111", "0110110101111101111111110101011011111110", "1110011111111111111111111111110111111011"]
THEIRS = ["0000011111101111011110110111111011000110", "1110011110101101101011101011001000110100"]

# Right, wrong and missing labels of 40 texts, of three seeds of one model and two of another.
OUR_LABELS = (
    "200 100 100 200 000 110 200 200 000 100 200 100 100 110 000 011 100 200 100 200 100 100 110 000 100 300 200 110 100 100 110 000 100 100 200 110 200 300 100 000",
    "200 100 100 200 000 100 210 200 000 100 200 100 100 110 000 100 100 210 100 200 100 110 110 000 100 201 101 100 100 110 100 010 100 100 200 100 200 102 100 010",
    "200 100 100 200 000 100 111 210 000 100 200 011 100 100 000 100 100 200 100 200 110 120 100 010 100 300 200 100 100 011 100 010 100 001 210 110 200 201 001 000",
)
THEIR_LABELS = (
    "101 110 100 200 020 120 200 200 010 011 200 110 100 110 020 110 120 002 120 111 100 001 011 000 100 300 200 110 100 120 100 010 110 110 200 120 012 102 100 020",
    "200 100 100 111 010 011 101 002 000 110 002 110 011 100 020 100 120 101 110 101 120 011 120 000 001 201 101 100 100 110 100 010 110 011 200 100 111 201 110 020",
)


def counts(seeds):
    return [[[int(digit) for digit in text] for text in seed.split()] for seed in seeds]


def bits(seeds):
    return [[int(bit) for bit in seed] for seed in seeds]


class Rows(unittest.TestCase):
    def test_the_rows_of_a_small_task_are_the_same_in_every_call(self):
        lines = project.lines(f"{project.HERE}/clinc150/train.jsonl.zst")
        drawn = tasks.drawn(lines, 1500)
        self.assertEqual([json.loads(line)["id"] for line in drawn[:4]], ["cl-train-011994", "cl-train-012876", "cl-train-007889", "cl-train-003635"])
        self.assertEqual(len(set(drawn)), 1500)
        self.assertEqual(lines[0][:24], '{"id":"cl-train-000000",')

    def test_peers_see_the_rows_that_pre_training_is_measured_on(self):
        few = {name: plan for name, plan in pretrained.TASKS.items() if "rows" in plan}
        self.assertEqual({name: (plan["data"], plan["rows"], plan["field"]) for name, plan in few.items()},
                         {name: (plan.data, plan.rows, plan.field) for name, plan in peer_rows.TASKS.items() if plan.rows})

    def test_each_row_is_held_out_once_in_five_folds_and_a_tenth_of_many_rows(self):
        folds = peer_rows.folds(503)
        self.assertEqual(sorted(row for _, held_out in folds for row in held_out), list(range(503)))
        self.assertTrue(all(sorted(train + held_out) == list(range(503)) for train, held_out in folds))
        [(train, held_out)] = peer_rows.folds(2001)
        self.assertEqual((len(train), len(held_out)), (1800, 201))
        self.assertFalse(set(train) & set(held_out))

    def test_no_phrase_of_a_held_out_sentence_is_trained_on(self):
        texts = [f"film {i} is  very good" for i in range(30)] + ["very good", "is very good", "good film", "film 3", "3 is"]
        [(train, held_out)] = peer_rows.sentences(texts)
        self.assertEqual(len(held_out), 4)
        self.assertFalse({30, 31, 33, 34} & set(held_out))
        held_out_text = " / ".join(" ".join(texts[i].split()) for i in held_out)
        self.assertFalse([texts[i] for i in train if " ".join(texts[i].split()) in held_out_text])
        left_out = set(range(len(texts))) - set(train) - set(held_out)
        self.assertEqual(left_out, {i for i in (30, 31, 33, 34) if texts[i] in held_out_text})
        self.assertTrue(left_out)

    def test_the_first_of_equally_good_settings_is_chosen_by_its_mean(self):
        scores = {"a": [0.2, 0.4, 0.9, 0.4, 0.6], "b": [0.5] * 5, "c": [0.1] * 5}
        turns = {name: iter(values) for name, values in scores.items()}
        chosen, tried = peer_rows.choose("abc", lambda setting, *_: next(turns[setting]), peer_rows.folds(500))
        self.assertEqual(chosen, "a")
        self.assertEqual([one["held_out"] for one in tried], [0.5, 0.5, 0.1])


class Paired(unittest.TestCase):
    def test_correct_answers_are_packed_as_numpy_packs_them(self):
        self.assertEqual(paired.pack(bits(OURS)[0]), "3/77f78=")
        self.assertEqual(paired.pack(bits(OURS)[0][:11]), "3+A=")
        for rows in (0, 1, 7, 8, 9, 40):
            with self.subTest(rows=rows):
                self.assertEqual(paired.unpack(paired.pack(bits(OURS)[1][:rows]), rows), bits(OURS)[1][:rows])

    def test_answers_of_other_rows_are_refused(self):
        with self.assertRaisesRegex(ValueError, "5 bytes of correct answers, but 41 texts need 6"):
            paired.unpack("3/77f78=", 41)

    def test_the_paired_interval_is_that_of_scipy(self):
        # SciPy 1.17.1: d.mean(), stats.norm.interval(0.95, d.mean(), stats.sem(d)) of the differences of the means over the seeds.
        mean, half = paired.difference(bits(OURS), bits(THEIRS))
        self.assertAlmostEqual(mean, 0.22916666666666666, places=12)
        self.assertAlmostEqual(mean - half, 0.11595521365311556, places=12)
        self.assertAlmostEqual(mean + half, 0.34237811968021775, places=12)
        # stats.bootstrap of the texts, percentile, 100,000 resamples, default_rng(1): 0.1167 to 0.3417.
        self.assertAlmostEqual(mean - half, 0.11667, delta=0.005)
        self.assertAlmostEqual(mean + half, 0.34167, delta=0.005)

    def test_a_model_does_not_differ_from_itself(self):
        self.assertEqual(paired.difference(bits(OURS), bits(OURS)), (0, 0))

    def test_models_on_other_texts_are_refused(self):
        with self.assertRaisesRegex(ValueError, r"\[39, 40\] texts"):
            paired.difference(bits(OURS), [bits(THEIRS)[0][:39]])


    def test_the_interval_of_f1_is_the_jackknife_of_astropy(self):
        # astropy 8.0.2, scikit-learn 1.9.1: jackknife_stats of the difference of the mean f1_score(average="micro") of the seeds; 0.0422390081291531
        # is its standard error.
        difference, half = paired.f1_difference(counts(OUR_LABELS), counts(THEIR_LABELS))
        self.assertAlmostEqual(difference, 0.25221832129409105, places=12)
        self.assertAlmostEqual(half, paired.NORMAL * 0.0422390081291531, places=12)
        self.assertEqual(paired.f1_difference(counts(OUR_LABELS), counts(OUR_LABELS)), (0, 0))

    def test_counts_are_unpacked_as_they_were_packed(self):
        [first, *_] = counts(OUR_LABELS)
        self.assertEqual(paired.unpack_counts(paired.pack_counts(first), 40), first)
        with self.assertRaisesRegex(ValueError, "120 numbers of right, wrong and missing labels, but 41 texts need 123"):
            paired.unpack_counts(paired.pack_counts(first), 41)
        with self.assertRaisesRegex(ValueError, r"\[39, 40\] texts"):
            paired.f1_difference([first], [first[:39]])


class Records(unittest.TestCase):
    def setUp(self):
        self.records = [record for task in peer_rows.TASKS for record in peer_rows.records(task).values()]
        self.assertGreater(len(self.records), 10)

    def test_the_accuracy_of_a_record_is_that_of_its_correct_answers(self):
        for record in self.records:
            for run in record["runs"]:
                with self.subTest(task=record["task"], peer=record["peer"], seed=run["seed"]):
                    right = paired.unpack(run["right"], record["dev_rows"])
                    self.assertAlmostEqual(sum(right) / len(right), run["accuracy"], places=12)
            self.assertAlmostEqual(sum(run["accuracy"] for run in record["runs"]) / len(record["runs"]), record["accuracy"], places=12)

    def test_quantized_models_are_no_larger_than_their_names_say(self):
        sizes = {"fasttext-3mb": 3_000_000, "fasttext-1mb": 1_000_000, "model2vec-int8-regression": 4_000_000}
        for record in self.records:
            with self.subTest(task=record["task"], peer=record["peer"]):
                self.assertLessEqual(record["bytes"], sizes.get(record["peer"], record["bytes"]))

    def test_the_page_of_the_peers_says_what_the_records_say(self):
        self.assertEqual(peer_page.OUT.read_text(), peer_page.page())
        self.assertEqual(peer_page.TRAINING.read_text(), peer_page.training())
        rows = [line for line in peer_page.TRAINING.read_text().splitlines() if line.split(" | ")[0].removeprefix("| ") in peer_page.FEW]
        self.assertEqual(len(rows), len(peer_page.FEW))

    def test_the_pages_of_labels_and_languages_say_what_the_records_say(self):
        for module in (multilabel, languages):
            self.assertEqual(module.PAGE.read_text(), module.page())
            for runs in (runs for task in module.SETS for peer in module.RUNS.of(task).values() for runs in peer.values()):
                if "right" in runs:
                    self.assertAlmostEqual(sum(paired.unpack(runs["right"], runs["rows"])) / runs["rows"], runs["accuracy"], places=12)
                if "counts" in runs:
                    total = map(sum, zip(*paired.unpack_counts(runs["counts"], runs["rows"])))
                    self.assertAlmostEqual(paired.micro_f1(*total), runs["micro_f1"], places=6)

    def test_the_results_page_says_what_the_records_say(self):
        self.assertEqual((project.ROOT / "docs/results.md").read_text(), results.page())

    def test_the_page_of_the_ablation_says_what_the_records_say(self):
        self.assertEqual((project.ROOT / ablation.PAGE).read_text(), ablation.page())

    def test_the_page_of_confidence_says_what_the_reports_say(self):
        self.assertEqual((project.ROOT / "docs/results/confidence.md").read_text(), confidence.page())

    def test_the_page_of_pre_training_says_what_the_records_say(self):
        self.assertEqual(pretrained.PAGE.read_text(), pretrained.page())

    def test_the_readme_has_the_numbers_of_the_records(self):
        readme = (project.ROOT / "README.md").read_text()
        for title, task in (("CLINC150", "clinc150"), ("TREC, fine", "trec"), ("SST-2", "sst2"), ("AG News, subset", "ag_news")):
            cells = [cell.strip() for cell in re.search(rf"^\| {title} \|(.*)\|$", readme, re.M)[1].split("|")]
            records = peer_rows.records(task)
            files = [project.ROOT / f"docs/results/run-{task}-{mixer}.json" for mixer in tasks.MIXERS]
            ours = [json.loads(file.read_text())["accuracy_int8"] if file.exists() else None for file in files]
            peers = [record["accuracy"] if record else None
                     for record in (records.get("kinglet-small-soft") or records.get("kinglet-small"), records.get("fasttext"), peer_page.tfidf(records))]
            self.assertEqual(cells, ["–" if value is None else f"{100 * value:.1f}" for value in [*ours, *peers]])
        for name, words in (("intents", "default model (1.1 MB)"), ("intents-nano", "microcontrollers (0.34 MB)")):
            report = json.loads((project.ROOT / f"models/{name}/report.json").read_text())
            self.assertRegex(readme, re.escape(words) + rf"[^,.]* {100 * report['dev']['accuracy_int8']:.1f}\b")


if __name__ == "__main__":
    os.chdir(project.ROOT)
    unittest.main(argv=sys.argv[:1] + (sys.argv[1:] or ["-v"]))
