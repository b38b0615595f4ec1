//! `kinglet classify --stream`: the running label of a text that is still arriving.

use std::io::{self, Write};

use anyhow::{Result, bail};
use kinglet::answer::Answer;
use kinglet::multi_label::Decision;
use kinglet::stream::Stream;
use kinglet::tokenizer::Blank;
use serde_json::{Map, Value};

use super::answer::Printed;
use super::input::Source;
use super::model::Model;
use super::output::Outcome;

/// Maximum number of bytes between two running labels.
const MOST: usize = 1 << 16;

/// Options of a stream.
pub struct Plan {
    /// Number of labels to print, if it was named.
    pub top: Option<usize>,
    /// Whether to print JSON instead of columns.
    pub json: bool,
    /// Prints a line at least every so many bytes.
    pub every: Option<u64>,
    /// Overrides the model's threshold.
    pub threshold: Option<f32>,
}

/// Reads the input to its end; writes the running label when it changes, and the final answer.
///
/// Memory does not grow with the input.
pub fn run(model: &Model, (mut input, name): Source, out: &mut dyn Write, plan: &Plan) -> Result<Outcome> {
    let Some(bundle) = model.as_bundle() else {
        bail!(
            "--stream needs a .kinglet file, because an ONNX model reads a whole text at once; export the model again, or omit --stream"
        );
    };
    let (labels, decision) = (bundle.labels(), bundle.decision());
    let mut stream = Stream::new(bundle.engines().take()?);
    let mut logits = vec![0.0; labels.len()];
    let mut answers =
        Answers { out, plan, labels, decision, probabilities: logits.clone(), blank: Some(Blank::Empty), last: None };

    let every = plan.every.unwrap_or(u64::MAX);
    let (mut bytes, mut due) = (0u64, every);
    let mut buffer = vec![0; MOST];
    let mut mark = Mark::default();
    loop {
        // Stop where a line is due, so that the output does not depend on how the input arrives.
        let most = usize::try_from(due - bytes).unwrap_or(MOST).min(MOST);
        let read = match input.read(buffer.get_mut(..most).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(anyhow::Error::new(e).context(format!("cannot read {name}"))),
        };
        bytes += read as u64;
        mark.strip(buffer.get(..read).unwrap_or_default(), |text| stream.push(text))?;
        let is_due = bytes == due;
        if is_due {
            due = due.saturating_add(every);
        }
        if stream.snapshot(&mut logits)?.is_some() {
            answers.blank = stream.blank();
            answers.running(bytes, stream.tokens(), &logits, is_due)?;
        }
    }
    mark.end(|text| stream.push(text))?;
    let tokens = stream.finish(&mut logits)?;
    answers.blank = stream.blank();
    answers.last(bytes, tokens, &logits)?;
    Ok(Outcome::Done)
}

/// Strips the byte order mark from the start of the input, which may arrive in parts.
#[derive(Default)]
struct Mark {
    seen: usize,
    over: bool,
}

impl Mark {
    const BYTES: &[u8] = b"\xEF\xBB\xBF";

    /// Passes on the part of `text` that is not the mark.
    fn strip<E>(&mut self, text: &[u8], mut push: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut text = text;
        while !self.over {
            let Some((&byte, rest)) = text.split_first() else { return Ok(()) };
            if Self::BYTES.get(self.seen) == Some(&byte) {
                (self.seen, text) = (self.seen + 1, rest);
                self.over = self.seen == Self::BYTES.len();
            } else {
                // Not a mark: what looked like its start is text.
                self.end(&mut push)?;
            }
        }
        push(text)
    }

    /// Ends the input: an incomplete mark is text.
    fn end<E>(&mut self, mut push: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let held = if self.over { 0 } else { self.seen };
        self.over = true;
        push(Self::BYTES.get(..held).unwrap_or_default())
    }
}

/// Writes answers.
struct Answers<'a> {
    out: &'a mut dyn Write,
    plan: &'a Plan,
    labels: &'a [String],
    decision: Decision<'a>,
    probabilities: Vec<f32>,
    /// Why the text so far has no label.
    blank: Option<Blank>,
    /// What was printed last: the most likely class, whether it was unsure, and the labels.
    last: Option<(usize, bool, Vec<usize>)>,
}

impl Answers<'_> {
    fn answer(&mut self, logits: &[f32]) -> Result<Printed<'_>> {
        let answer = Answer::from_logits(logits, self.decision, &mut self.probabilities)?;
        let answer = self.plan.threshold.map_or(answer, |threshold| answer.with_threshold(threshold));
        let answer = answer.with_blank(self.blank);
        Ok(Printed { answer, labels: self.labels, top: self.plan.top })
    }

    fn running(&mut self, bytes: u64, tokens: u64, logits: &[f32], is_due: bool) -> Result<()> {
        let (last, json) = (self.last.take(), self.plan.json);
        let answer = self.answer(logits)?;
        let labels = answer.answer.labels().map(|one| one.class);
        // Where any number of labels may apply, the most likely one alone says nothing.
        let class = if answer.answer.is_multi_label() { 0 } else { answer.answer.best().class };
        let said = Some((class, answer.answer.is_unsure(), labels.collect()));
        if !is_due && said == last {
            self.last = last;
        } else {
            let line = line(json, bytes, tokens, &answer, false);
            self.last = said;
            self.write(&line)?;
        }
        Ok(())
    }

    fn last(&mut self, bytes: u64, tokens: u64, logits: &[f32]) -> Result<()> {
        let json = self.plan.json;
        let line = line(json, bytes, tokens, &self.answer(logits)?, true);
        self.write(&line)
    }

    fn write(&mut self, line: &str) -> Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()?;
        Ok(())
    }
}

/// `bytes<TAB>label<TAB>score<TAB>running`, or an object.
fn line(json: bool, bytes: u64, tokens: u64, answer: &Printed<'_>, is_final: bool) -> String {
    if json {
        let mut object = Map::new();
        object.insert("bytes".to_string(), bytes.into());
        object.insert("tokens".to_string(), tokens.into());
        object.insert("final".to_string(), is_final.into());
        answer.put(&mut object);
        return Value::Object(object).to_string();
    }
    format!("{bytes}\t{}{}", answer.columns(), if is_final { "final" } else { "running" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_taken_off_however_it_is_cut() {
        for (text, want) in [
            (&b"\xEF\xBB\xBFa"[..], &b"a"[..]),
            (b"\xEF\xBB\xBF", b""),
            (b"\xEF\xBBa", b"\xEF\xBBa"),
            (b"\xEF\xBB", b"\xEF\xBB"),
            (b"\xEF\xEF\xBB\xBF", b"\xEF\xEF\xBB\xBF"),
            (b"a\xEF\xBB\xBF", b"a\xEF\xBB\xBF"),
            (b"", b""),
        ] {
            for size in 1..=4 {
                let (mut got, mut mark): (Vec<u8>, _) = (Vec::new(), Mark::default());
                let mut push = |text: &[u8]| -> Result<(), ()> {
                    got.extend(text);
                    Ok(())
                };
                text.chunks(size).for_each(|part| mark.strip(part, &mut push).unwrap());
                mark.end(&mut push).unwrap();
                assert_eq!(got, want, "in parts of {size}");
            }
        }
    }
}
