//! Tests corpora: from documents to shards, examples, and batches, with every way in which they can be wrong.
#![allow(missing_docs, clippy::unwrap_used)]

mod fixture;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use fixture::{Task, stderr, stdout};
use kinglet::bundle::crc32c;
use kinglet::tokenizer::Table;
use kinglet_train::corpus::{Corpus, Examples, Loader, LoaderConfig, held_out};
use kinglet_train::objective::{Example, SpanCorruption};
use kinglet_train::tokenizer::files::TokenizerFiles;
use serde_json::Value;

const WORDS: [&str; 8] = ["the", "wren", "sang", "in", "an", "old", "tree", "again"];

/// Returns `count` documents of 1 to 23 lines with 5 words each.
fn documents(count: usize) -> Vec<String> {
    let line = |d: usize, l: usize| (0..5).map(|w| WORDS[(d * 3 + l * 5 + w * w) % 8]).collect::<Vec<_>>().join(" ");
    (0..count).map(|d| (0..1 + d * 7 % 23).map(|l| line(d, l)).collect::<Vec<_>>().join("\n")).collect()
}

/// Writes documents as a text file with blank lines between them.
fn text(task: &Task, name: &str, documents: &[String]) {
    fs::write(task.path(name), documents.join("\n\n") + "\n").unwrap();
}

fn sha256(task: &Task) -> String {
    TokenizerFiles::read(&task.path("tokenizer")).unwrap().sha256()
}

/// Runs `corpus` with more arguments and returns its exit code, stdout, and stderr.
fn corpus(task: &Task, more: &[&str]) -> (Option<i32>, String, String) {
    let output = task.run(&[&["corpus", "--tokenizer", "tokenizer"], more].concat());
    (output.status.code(), stdout(&output), stderr(&output))
}

fn written(task: &Task, more: &[&str]) -> String {
    let (code, said, error) = corpus(task, more);
    assert_eq!(code, Some(0), "{error}");
    said
}

fn refused(task: &Task, more: &[&str]) -> String {
    let (code, said, error) = corpus(task, more);
    assert_eq!((code, said.as_str()), (Some(2), ""), "{error}");
    error
}

fn open(task: &Task, folder: &str) -> anyhow::Result<Corpus> {
    Corpus::open(&task.path(folder), &sha256(task))
}

fn no_corpus(task: &Task, folder: &str) -> String {
    format!("{:#}", open(task, folder).unwrap_err())
}

/// Returns the tokenizer's ids of all documents, one list per document.
fn expected(task: &Task, documents: &[String]) -> Vec<Vec<u32>> {
    let bytes = fs::read(task.path("tokenizer/tokenizer.bin")).unwrap();
    let table = Table::new(&bytes).unwrap();
    let encode = |text: &String| {
        let mut ids = table.encode(text);
        ids.pop();
        ids
    };
    documents.iter().map(encode).collect()
}

fn ids(corpus: &Corpus) -> Vec<Vec<u32>> {
    let read = |document| {
        let mut out = Vec::new();
        corpus.read(corpus.document(document), &mut out);
        out
    };
    (0..corpus.documents()).map(read).collect()
}

/// Creates a task with the corpus of 40 documents in several shards; also returns its tokens in order.
fn task() -> (Task, Arc<Corpus>, Vec<u32>) {
    let task = Task::new();
    let documents = documents(40);
    text(&task, "a.txt", &documents);
    written(&task, &["--out", "corpus", "a.txt", "--shard-tokens", "900"]);
    let corpus = Arc::new(open(&task, "corpus").unwrap());
    let tokens = expected(&task, &documents).concat();
    (task, corpus, tokens)
}

fn config(corpus: &Corpus) -> LoaderConfig {
    LoaderConfig {
        objective: SpanCorruption::default(),
        inputs_length: 32,
        batch_size: 6,
        merge: true,
        seed: 11,
        vocab_size: corpus.vocab_size() + 100,
    }
}

fn batches(
    corpus: &Arc<Corpus>,
    config: LoaderConfig,
    first: u64,
    rank: usize,
    world: usize,
    n: usize,
) -> Vec<Vec<Example>> {
    let mut loader = Loader::new(Arc::clone(corpus), config, first, rank, world).unwrap();
    (0..n).map(|_| loader.next_batch().unwrap()).collect()
}

#[test]
fn every_kind_of_file_gives_the_documents_ids() {
    let task = Task::new();
    let documents = documents(30);
    text(&task, "a.txt", &documents[..10]);
    let packed = zstd::encode_all((documents[10..20].join("\n \n")).as_bytes(), 1).unwrap();
    fs::write(task.path("b.txt.zst"), packed).unwrap();
    let rows: String = documents[20..].iter().map(|d| format!("{}\n", serde_json::json!({ "text": d }))).collect();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(rows.as_bytes()).unwrap();
    fs::write(task.path("c.jsonl.gz"), gz.finish().unwrap()).unwrap();
    let said = written(&task, &["--out", "corpus", "a.txt", "b.txt.zst", "c.jsonl.gz", "--json"]);
    let summary: Value = serde_json::from_str(&said).unwrap();
    let corpus = open(&task, "corpus").unwrap();
    let expected = expected(&task, &documents);
    assert_eq!(ids(&corpus), expected);
    assert_eq!(summary["documents"], 30);
    assert_eq!(summary["tokens"].as_u64(), Some(corpus.tokens()));
    assert_eq!(corpus.tokens() as usize, expected.concat().len());
    assert_eq!(corpus.text_bytes() as usize, documents.iter().map(String::len).sum::<usize>());
    assert_eq!(summary["sources"][2]["documents"], 10);
    let record: Value = serde_json::from_slice(&task.bytes("corpus", "corpus.json")).unwrap();
    assert_eq!(record, summary);
}

#[test]
fn shards_have_the_documented_bytes() {
    let task = Task::new();
    fs::write(task.path("a.txt"), "the old tree\n\nsang again\n").unwrap();
    written(&task, &["--out", "corpus", "a.txt"]);
    let bytes = task.bytes("corpus", "shard-00000.tokens");
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let expected = expected(&task, &["the old tree".into(), "sang again".into()]);
    let n = expected.concat().len();
    assert_eq!(&bytes[..8], b"\x89KCORP\r\n");
    assert_eq!([8, 12, 16, 20, 24, 28].map(u32_at), [1, 2, 380, 0, 1, 0]);
    assert_eq!(&bytes[32..96], sha256(&task).as_bytes());
    assert_eq!([96, 104, 112].map(u64_at), [2, n as u64, 22]);
    assert_eq!([u32_at(120), u32_at(124)], [crc32c(&bytes[128..]), crc32c(&bytes[..124])]);
    let stored: Vec<u32> =
        bytes[128..128 + 2 * n].as_chunks::<2>().0.iter().map(|&id| u16::from_le_bytes(id).into()).collect();
    assert_eq!(stored, expected.concat());
    let at = (128 + 2 * n).next_multiple_of(8);
    assert!(bytes[128 + 2 * n..at].iter().all(|&b| b == 0));
    assert_eq!([at, at + 8, at + 16].map(u64_at), [0, expected[0].len() as u64, n as u64]);
    assert_eq!(bytes.len(), at + 24);
}

#[test]
fn the_corpus_is_the_same_for_any_number_of_threads() {
    let task = Task::new();
    text(&task, "a.txt", &documents(200));
    written(&task, &["--out", "one", "a.txt", "--threads", "1"]);
    written(&task, &["--out", "three", "a.txt", "--threads", "3"]);
    assert_eq!(task.bytes("one", "shard-00000.tokens"), task.bytes("three", "shard-00000.tokens"));
}

#[test]
fn ranges_are_read_across_shards() {
    let (task, corpus, tokens) = task();
    for start in (0..tokens.len()).step_by(37) {
        for length in [0, 1, 5, 700, 2500] {
            let end = tokens.len().min(start + length);
            let mut out = Vec::new();
            corpus.read(start as u64..end as u64, &mut out);
            assert_eq!(out, tokens[start..end], "{start}..{end}");
        }
    }
    assert!(task.path("corpus/shard-00002.tokens").exists());
}

#[test]
fn lines_are_documents_when_asked_for() {
    let task = Task::new();
    fs::write(task.path("a.txt"), "the wren\nsang\n\nagain\n").unwrap();
    written(&task, &["--out", "corpus", "a.txt", "--document-end", "line"]);
    let lines = ["the wren", "sang", "again"].map(String::from);
    assert_eq!(ids(&open(&task, "corpus").unwrap()), expected(&task, &lines));
}

#[test]
fn merged_examples_cover_the_documents_one_after_another() {
    let (_task, corpus, tokens) = task();
    let examples = Examples::new(Arc::clone(&corpus), 50, true).unwrap();
    assert_eq!(examples.count() as usize, tokens.len() / 50);
    let mut out = vec![7];
    for index in 0..examples.count() {
        examples.read(index, 0, &mut out);
        assert_eq!(out, tokens[index as usize * 50..][..50]);
    }
    // With a later start, the last example wraps around to the beginning.
    examples.read(examples.count() - 1, tokens.len() as u64 % 50 + 20, &mut out);
    assert_eq!(out, [&tokens[tokens.len() - 30..], &tokens[..20]].concat());
}

#[test]
fn unmerged_examples_are_parts_of_one_document() {
    let task = Task::new();
    // More documents than the index counts by, some longer than an example, some of one token.
    let mut documents = documents(300);
    documents[5] = "a".into();
    documents[200] = "the".into();
    text(&task, "a.txt", &documents);
    written(&task, &["--out", "corpus", "a.txt", "--shard-tokens", "2000"]);
    let corpus = Arc::new(open(&task, "corpus").unwrap());
    let parts: Vec<Vec<u32>> = expected(&task, &documents)
        .iter()
        .flat_map(|ids| ids.chunks(40).filter(|part| part.len() >= 2).map(<[u32]>::to_vec))
        .collect();
    let examples = Examples::new(corpus, 40, false).unwrap();
    assert_eq!(examples.count() as usize, parts.len());
    let mut out = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        examples.read(index as u64, 3, &mut out);
        assert_eq!(&out, part, "example {index}");
    }
}

#[test]
fn an_epoch_visits_every_example_once_in_an_order_of_its_own() {
    let (_task, corpus, _) = task();
    let config = LoaderConfig { merge: false, batch_size: 1, ..config(&corpus) };
    let count = Loader::new(Arc::clone(&corpus), config, 0, 0, 1).unwrap().examples() as usize;
    assert!(count > 60, "{count}");
    let both = batches(&corpus, config, 0, 0, 1, 2 * count);
    // The tokens of an example, masked or not, identify it; sentinels and `</s>` do not.
    let tokens = |example: &Example| {
        let mut ids = [&example.inputs[..], &example.targets[..]].concat();
        ids.retain(|id| (2..corpus.vocab_size() as u32).contains(id));
        ids.sort_unstable();
        ids
    };
    let mut epochs: Vec<Vec<Vec<u32>>> =
        both.chunks(count).map(|epoch| epoch.iter().map(|batch| tokens(&batch[0])).collect()).collect();
    assert_ne!(epochs[0], epochs[1]);
    epochs.iter_mut().for_each(|epoch| epoch.sort_unstable());
    assert_eq!(epochs[0], epochs[1]);
}

#[test]
fn a_later_step_needs_no_replay() {
    let (_task, corpus, _) = task();
    for merge in [true, false] {
        let config = LoaderConfig { merge, ..config(&corpus) };
        // Enough steps for several epochs.
        let all = batches(&corpus, config, 0, 0, 1, 60);
        for first in [1, 7, 31, 59] {
            assert_eq!(batches(&corpus, config, first as u64, 0, 1, 60 - first), all[first..]);
        }
        assert_ne!(all[0], all[1]);
        assert_ne!(batches(&corpus, LoaderConfig { seed: 12, ..config }, 0, 0, 1, 1), all[..1]);
    }
}

#[test]
fn the_ranks_batches_joined_are_the_single_process_batch() {
    let (_task, corpus, _) = task();
    let config = config(&corpus);
    let single = batches(&corpus, config, 3, 0, 1, 9);
    for world in [2, 3, 4, 6] {
        let shares: Vec<_> = (0..world).map(|rank| batches(&corpus, config, 3, rank, world, 9)).collect();
        let joined: Vec<Vec<Example>> =
            (0..9).map(|step| shares.iter().flat_map(|s| s[step].clone()).collect()).collect();
        assert_eq!(joined, single, "{world} processes");
    }
}

#[test]
fn examples_have_the_lengths_of_the_objective() {
    let (_task, corpus, _) = task();
    let lengths = SpanCorruption::default().lengths(32);
    for batch in batches(&corpus, config(&corpus), 0, 0, 1, 20) {
        assert_eq!(batch.len(), 6);
        for example in batch {
            assert_eq!((example.inputs.len(), example.targets.len()), (32, lengths.targets));
            assert_eq!(example.targets[0] as usize, corpus.vocab_size() + 99);
        }
    }
}

#[test]
fn waiting_for_data_is_counted() {
    let (_task, corpus, _) = task();
    let mut loader = Loader::new(Arc::clone(&corpus), config(&corpus), 0, 0, 1).unwrap();
    for _ in 0..50 {
        loader.next_batch().unwrap();
    }
    assert!(loader.waited() > std::time::Duration::ZERO);
}

#[test]
fn held_out_batches_are_fixed_and_visit_everything_once() {
    let (_task, corpus, tokens) = task();
    let config = config(&corpus);
    let all = held_out(Arc::clone(&corpus), config, 0).unwrap();
    assert_eq!(all, held_out(Arc::clone(&corpus), LoaderConfig { seed: 99, ..config }, 0).unwrap());
    let length = config.objective.lengths(32).tokens;
    assert_eq!(all.concat().len(), tokens.len() / length);
    // Every token is in the inputs or the targets of its example.
    let mut counts: BTreeMap<u32, i64> = BTreeMap::new();
    for &id in &tokens[..tokens.len() / length * length] {
        *counts.entry(id).or_default() += 1;
    }
    for example in all.concat() {
        for id in example.inputs.iter().chain(&example.targets) {
            if (2..corpus.vocab_size() as u32).contains(id) {
                *counts.entry(*id).or_default() -= 1;
            }
        }
    }
    assert!(counts.values().all(|&left| left == 0), "{counts:?}");
    let some = held_out(Arc::clone(&corpus), config, 7).unwrap();
    assert_eq!(some.iter().map(Vec::len).collect::<Vec<_>>(), [6, 1]);
    assert!(some.concat().iter().all(|example| all.concat().contains(example)));
}

#[test]
fn impossible_loaders_are_refused() {
    let (_task, corpus, _) = task();
    let good = config(&corpus);
    let refused = |config, rank, world| {
        format!("{:#}", Loader::new(Arc::clone(&corpus), config, 0, rank, world).map(drop).unwrap_err())
    };
    assert!(refused(good, 0, 0).contains("rank 0 of 0 processes"));
    assert!(refused(good, 2, 2).contains("rank 2 of 2 processes"));
    assert!(refused(good, 0, 7).contains("cannot be shared by 7"));
    assert!(refused(LoaderConfig { batch_size: 0, ..good }, 0, 1).contains("shared by 1"));
    assert!(refused(LoaderConfig { inputs_length: 3, ..good }, 0, 1).contains("too short"));
    assert!(refused(LoaderConfig { inputs_length: 100_000, ..good }, 0, 1).contains("masked spans"));
    assert!(refused(LoaderConfig { vocab_size: corpus.vocab_size(), ..good }, 0, 1).contains("no id is left"));
    let objective = SpanCorruption { noise_density: 2.0, ..good.objective };
    assert!(refused(LoaderConfig { objective, ..good }, 0, 1).contains("noise_density is 2"));
    let roomy = LoaderConfig { inputs_length: 5000, vocab_size: 10_000, ..good };
    assert!(refused(roomy, 0, 1).contains("tokens; an example needs"));
}

#[test]
fn damage_is_found_wherever_it_is() {
    let (task, _, _) = task();
    let path = task.path("corpus/shard-00001.tokens");
    let good = fs::read(&path).unwrap();
    for at in (0..128).chain((128..good.len()).step_by(61)).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, bad).unwrap();
        let error = no_corpus(&task, "corpus");
        assert!(error.contains("shard-00001.tokens"), "byte {at}: {error}");
    }
    for length in [0, 5, 127, 128, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        let error = no_corpus(&task, "corpus");
        assert!(error.contains("shard-00001.tokens"), "{length} bytes: {error}");
    }
    fs::write(&path, [&good[..], b"more"].concat()).unwrap();
    assert!(no_corpus(&task, "corpus").contains("is damaged: it has"));
    fs::remove_file(&path).unwrap();
    assert!(no_corpus(&task, "corpus").contains("cannot open"));
    fs::copy(task.path("corpus/shard-00000.tokens"), &path).unwrap();
    assert!(no_corpus(&task, "corpus").contains("mixes two corpora"));
    fs::write(&path, &good).unwrap();
    assert!(open(&task, "corpus").is_ok());
}

#[test]
fn damage_under_a_right_checksum_is_found_too() {
    let task = Task::new();
    fs::write(task.path("a.txt"), "the old tree\n\nsang again\n").unwrap();
    written(&task, &["--out", "corpus", "a.txt"]);
    let path = task.path("corpus/shard-00000.tokens");
    let good = fs::read(&path).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        let content = crc32c(&bad[128..]).to_le_bytes();
        bad[120..124].copy_from_slice(&content);
        let header = crc32c(&bad[..124]).to_le_bytes();
        bad[124..128].copy_from_slice(&header);
        fs::write(&path, bad).unwrap();
        no_corpus(&task, "corpus")
    };
    assert!(with(128, &380u16.to_le_bytes()).contains("it has id 380, its tokenizer 380 ids"));
    assert!(with(good.len() - 16, &u64::MAX.to_le_bytes()).contains("not in order"));
    assert!(with(8, &2u32.to_le_bytes()).contains("has version 2 of the format, this program reads 1"));
    assert!(with(12, &4u32.to_le_bytes()).contains("ids of 4 bytes"));
    assert!(with(104, &u64::MAX.to_le_bytes()).contains("does not fit"));
    assert!(with(96, &u64::MAX.to_le_bytes()).contains("does not fit"));
    // A count that includes missing shards.
    assert!(with(24, &7u32.to_le_bytes()).contains("shard-00001.tokens"));
    assert!(with(24, &0u32.to_le_bytes()).contains("it is shard 0 of 0"));
}

#[test]
fn another_tokenizer_is_refused() {
    let (task, _, _) = task();
    let error = format!("{:#}", Corpus::open(&task.path("corpus"), &"0".repeat(64)).unwrap_err());
    assert!(error.contains("another tokenizer") && error.contains(&sha256(&task)), "{error}");
}

#[test]
fn a_folder_without_a_corpus_is_refused_with_the_command_to_make_one() {
    let task = Task::new();
    for folder in ["tokenizer", "absent"] {
        let error = no_corpus(&task, folder);
        assert!(error.contains("kinglet-train corpus --tokenizer"), "{error}");
    }
}

fn nothing_is_left(task: &Task, before: usize) {
    let left: Vec<_> = fs::read_dir(task.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), before, "{left:?}");
}

#[test]
fn files_that_are_no_corpus_are_refused_and_leave_nothing() {
    let task = Task::new();
    text(&task, "a.txt", &documents(3));
    fs::write(task.path("empty.txt"), " \n\n").unwrap();
    fs::write(task.path("rows.jsonl"), "{\"text\": \"a\"}\n{\"body\": \"b\"}\n").unwrap();
    fs::write(task.path("broken.jsonl"), "{\"text\": \n").unwrap();
    let packed = zstd::encode_all(documents(50).join("\n\n").as_bytes(), 1).unwrap();
    fs::write(task.path("cut.txt.zst"), &packed[..packed.len() / 2]).unwrap();
    fs::create_dir(task.path("full")).unwrap();
    fs::write(task.path("full/mine"), "x").unwrap();
    let before = fs::read_dir(task.folder.path()).unwrap().count();
    for (more, expect) in [
        (vec!["--out", "new", "empty.txt"], "hold no text"),
        (
            vec!["--out", "new", "a.txt", "rows.jsonl"],
            "row 2: no field \"text\"; name the text's field with --text-field",
        ),
        (vec!["--out", "new", "rows.jsonl", "--text-field", "body"], "row 1: no field \"body\""),
        (vec!["--out", "new", "broken.jsonl"], "row 1: not a JSON object"),
        (vec!["--out", "new", "cut.txt.zst"], "cut.txt.zst"),
        (vec!["--out", "new", "a.txt", "absent.txt"], "cannot read absent.txt"),
        (vec!["--out", "new", "tokenizer"], "tokenizer is not a file"),
        (vec!["--out", "full", "a.txt", "--force"], "full is not empty and holds no corpus"),
        (vec!["--out", "a.txt", "a.txt"], "a.txt is not a directory"),
        (vec!["--out", "a.txt/new", "a.txt"], "--out a.txt/new cannot be made: a.txt is not a directory"),
        (vec!["--out", "/proc/kinglet/new", "a.txt"], "cannot make /proc/kinglet"),
        (vec!["--out", "new"], "FILE"),
    ] {
        let error = refused(&task, &more);
        assert!(error.contains(expect), "{more:?}: {error}");
        nothing_is_left(&task, before);
    }
    let output = task.run(&["corpus", "--tokenizer", "full", "--out", "new", "a.txt"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("cannot read tokenizer file"), "{}", stderr(&output));
    nothing_is_left(&task, before);
}

#[test]
fn an_old_corpus_is_replaced_only_when_asked() {
    let task = Task::new();
    let documents = documents(6);
    text(&task, "a.txt", &documents);
    written(&task, &["--out", "corpus", "a.txt", "--shard-tokens", "20"]);
    assert!(refused(&task, &["--out", "corpus", "a.txt"]).contains("--force replaces it"));
    text(&task, "a.txt", &documents[..2]);
    let before = fs::read_dir(task.folder.path()).unwrap().count();
    written(&task, &["--out", "corpus", "a.txt", "--force"]);
    assert_eq!(ids(&open(&task, "corpus").unwrap()), expected(&task, &documents[..2]));
    assert!(!Path::exists(&task.path("corpus/shard-00001.tokens")));
    nothing_is_left(&task, before);
}

#[cfg(unix)]
#[test]
fn a_signal_stops_in_order_and_leaves_nothing() {
    let task = Task::new();
    // Words that all differ: enough work that the signal arrives in the middle.
    let words = (0..3_000_000_u64).map(|i| format!("{:x} ", i * 7919)).collect::<String>();
    fs::write(task.path("a.txt"), words.replace("0 ", "0\n\n")).unwrap();
    let before = fs::read_dir(task.folder.path()).unwrap().count();
    let mut command = task.command(&["corpus", "--tokenizer", "tokenizer", "--out", "new", "a.txt"]);
    let child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let id = child.id().to_string();
    let unfinished = task.path(&format!(".new.{id}.tmp")).join("shard-00000.tokens");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !unfinished.exists() {
        assert!(std::time::Instant::now() < deadline, "no shard after a minute");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(std::process::Command::new("kill").args(["-s", "TERM", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("stopped by a signal; nothing was written"), "{}", stderr(&output));
    nothing_is_left(&task, before);
}
