//! `kinglet classify --stream`: the running label of a text that is still arriving.

use std::io::{self, Write};

use anyhow::{Result, bail};
use kinglet::calibration::{self, Calibration};
use kinglet::classifier::Answer;
use kinglet::engine::native::{DEFAULT_CHUNK, NativeEngine, scratch_bytes};
use serde_json::{Map, Value};

use super::Outcome;
use super::classify::{labels, put};
use super::input::Source;
use super::model::{Model, backend};

/// Maximum number of bytes between two running labels.
const MOST: usize = 1 << 16;

/// Options of a stream.
pub struct Plan {
    /// Number of labels to print.
    pub top: usize,
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
    let bundle = bundle.bundle()?;
    let calibration = bundle.calibration();
    let mut scratch = vec![0; scratch_bytes(bundle.config(), DEFAULT_CHUNK)];
    let mut logits = vec![0.0; bundle.config().num_labels];
    let mut engine = NativeEngine::with_backend(bundle, &mut scratch, backend()?)?;
    let mut stream = engine.stream();
    let mut answers =
        Answers { out, plan, labels: model.labels(), calibration, probabilities: vec![0.0; logits.len()], last: None };

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
            answers.running(bytes, stream.tokens(), &logits, is_due)?;
        }
    }
    mark.end(|text| stream.push(text))?;
    // White space completes the last word and changes nothing else; the end of text is one more token.
    stream.push(b" ")?;
    let tokens = stream.tokens() + 1;
    stream.finish(&mut logits)?;
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
    calibration: Option<Calibration>,
    probabilities: Vec<f32>,
    /// The last printed class, and whether it was unsure.
    last: Option<(usize, bool)>,
}

impl<'a> Answers<'a> {
    fn answer(&mut self, logits: &[f32]) -> Result<Answer<'a>> {
        let calibration = self.calibration.as_ref();
        let temperature = calibration.map_or(1.0, |c| c.temperature);
        calibration::softmax(logits, temperature, &mut self.probabilities)?;
        let threshold = self.plan.threshold.unwrap_or(calibration.map_or(0.0, |c| c.threshold));
        Ok(Answer::new(self.labels, &self.probabilities, calibration, threshold, self.plan.top))
    }

    fn running(&mut self, bytes: u64, tokens: u64, logits: &[f32], is_due: bool) -> Result<()> {
        let answer = self.answer(logits)?;
        let said = answer.top.first().map(|best| (best.class, answer.unsure));
        let line = self.line(bytes, tokens, &answer, false);
        if is_due || said != self.last {
            self.last = said;
            writeln!(self.out, "{line}")?;
            self.out.flush()?;
        }
        Ok(())
    }

    fn last(&mut self, bytes: u64, tokens: u64, logits: &[f32]) -> Result<()> {
        let answer = self.answer(logits)?;
        let line = self.line(bytes, tokens, &answer, true);
        writeln!(self.out, "{line}")?;
        self.out.flush()?;
        Ok(())
    }

    /// Formats `bytes<TAB>label<TAB>score<TAB>running`, or a JSON object.
    fn line(&self, bytes: u64, tokens: u64, answer: &Answer<'_>, is_final: bool) -> String {
        if self.plan.json {
            let mut object = Map::new();
            object.insert("bytes".to_string(), bytes.into());
            object.insert("tokens".to_string(), tokens.into());
            object.insert("final".to_string(), is_final.into());
            put(&mut object, answer);
            return Value::Object(object).to_string();
        }
        let columns: String = labels(answer).map(|(label, score)| format!("{label}\t{score:.4}\t")).collect();
        format!("{bytes}\t{columns}{}", if is_final { "final" } else { "running" })
    }
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
