//! `kinglet-train text2text`: the training loop of the encoder-decoder on pairs of texts, and what it leaves.
//!
//! This is how T5 and the paper fine-tune: the target, a sequence or a label's name, is written token by token, trained under
//! teacher forcing and scored by decoding. Beside what every run leaves ([`crate::training::folder`]) there are
//!
//! | file | what |
//! |---|---|
//! | `model.safetensors`, `seq2seq.json` | the best weights, f32, and their configuration |
//! | `tokenizer.json`, `tokenizer.bin` | the tokenizer |
//! | `labels.json` | of labels: their names |
//! | [`PREDICTIONS`] | target and answer of every dev pair, by the best weights |

pub mod config;
pub mod eval;
pub mod evaluate;
pub mod pairs;
pub mod plan;
pub mod row;

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use kinglet::spec::files;
use serde_json::json;

use crate::batch::{self, Batching, Seq2SeqBatch};
use crate::checkpoint;
use crate::interrupt::Interrupt;
use crate::machine::{Environment, device_name};
use crate::model::Mode;
use crate::model::seq2seq::Seq2Seq;
use crate::optim::{clear_gradients, clip_gradients};
use crate::training::progress::Progress;
use crate::random::{Purpose, derive_seed};
use crate::training::run::Ending;
use crate::training::folder::{self, RunFolder};
use crate::training::state::{Place, State};
use evaluate::{Answering, Evaluation};
use pairs::Task;
use plan::Plan;
use row::Row;

/// One JSON object for each dev pair, in the order of the file: `target`, `answer` (null for one that does not end, or has
/// tokens that no text has), `right`.
pub const PREDICTIONS: &str = "predictions.jsonl";

/// Trains according to `plan` and leaves the best weights, the logs and the state for `--resume` in `plan.out`.
///
/// # Errors
/// A file that cannot be written, or a loss that is not finite; what was saved before stays.
pub fn text2text(plan: &Plan, interrupt: &Interrupt) -> Result<Ending> {
    let t = &plan.config.train;
    let (out, device) = (&plan.out, plan.device);
    let started = Instant::now();

    // The model, the optimizer and where training stands.
    let model = first_weights(plan)?;
    let mut optimizer = t.optimizer_config().build(model.parameters());
    let mut at = plan.resume.clone().unwrap_or_else(|| State::start(plan.fingerprint.clone()));
    if plan.resume.is_some() {
        at.restore(out, model.parameters(), optimizer.as_mut())?;
    }
    let seconds_before = at.seconds;

    // The plan of all batches: how many there are decides the schedule.
    let lengths = plan.train.lengths();
    let batching = Batching { texts: t.batch_size, tokens: t.batch_tokens, window: t.bucket_batches };
    let epoch_of = |epoch| batch::epoch(&lengths, batching, t.seed, epoch);
    let total: u64 = (0..t.epochs).map(|epoch| epoch_of(epoch).len() as u64).sum();

    // The folder: what the run is, before its first step.
    let mut folder = RunFolder::open(out, at.rows, at.step)?;
    folder.write(run_folder::CONFIG, plan.fingerprint.config.as_bytes())?;
    let environment = serde_json::to_string_pretty(&Environment::of(device))? + "\n";
    folder.write(run_folder::ENVIRONMENT, environment.as_bytes())?;
    for (file, bytes) in plan.tokenizer.iter() {
        folder.write(file, bytes)?;
    }
    if let Task::Labels(labels) = &plan.task {
        folder.write(files::LABELS, (serde_json::to_string_pretty(&labels.names)? + "\n").as_bytes())?;
    }
    if at.finished {
        eprintln!("{} is finished: {} steps done, nothing to resume", out.display(), at.step);
        return Ok(Ending::Complete);
    }
    announce(plan, total, &at);

    let table = plan.tokenizer.table()?;
    let schedule = t.lr_schedule();
    let mode = Mode {
        train: true,
        dropout: t.dropout,
        drop_connect: t.drop_connect,
        bf16: t.bf16,
        recompute: t.gradient_checkpointing,
    };
    let answering = Answering { decode: plan.config.decode, max_tokens: plan.max_tokens };
    let mut evaluation_seconds = answering.longest(&model, &plan.dev);
    let mut progress = Progress::new(at.step, total);
    let mut logged = (started, at.tokens);
    let (mut saved, mut saved_step) = (started, at.step);
    let mut ending = Ending::Complete;

    'training: while at.place.epoch < t.epochs {
        let batches = epoch_of(at.place.epoch);
        while let Some(indices) = batches.get(at.place.batch as usize) {
            // One step under teacher forcing. Dropout depends on the seed and the step alone.
            tch::manual_seed(derive_seed(t.seed, Purpose::Step, at.step) as i64);
            let pairs: Vec<(&[u32], &[u32])> =
                indices.iter().map(|&i| (plan.train.ids[i].0.as_slice(), plan.train.ids[i].1.as_slice())).collect();
            let batch = Seq2SeqBatch::new(&pairs, device);
            let loss = model.loss(&batch, t.z_loss, &mode);
            (loss.sum / batch.target_tokens as f64).backward();
            let nats = loss.cross_entropy.double_value(&[]);
            let grad_norm = clip_gradients(model.parameters(), t.clip_norm);
            if !(nats.is_finite() && grad_norm.is_finite()) {
                progress.finish();
                bail!(
                    "the loss is {nats} and the gradient's norm {grad_norm} at step {} (epoch {}): lower train.lr (now {}), raise \
                     train.warmup_steps (now {}) or set train.clip_norm (now {}); the state before this step was not saved",
                    at.step + 1,
                    at.place.epoch + 1,
                    t.lr,
                    t.warmup_steps,
                    t.clip_norm
                );
            }
            let lr = schedule.at(at.step, total);
            optimizer.step(lr);
            clear_gradients(model.parameters());

            // Where training stands now.
            let epoch = at.place.epoch + 1;
            at.step += 1;
            at.place.batch += 1;
            at.tokens += (batch.tokens + batch.target_tokens) as u64;
            at.loss_sum += nats;
            at.loss_count += batch.target_tokens as u64;
            at.seconds = seconds_before + started.elapsed().as_secs_f64();
            progress.step(at.step);
            let end_of_epoch = at.place.batch as usize == batches.len();
            let end = end_of_epoch && epoch == t.epochs;

            // A row of training loss.
            if at.step.is_multiple_of(t.log_every) || end {
                let loss = at.loss_sum / at.loss_count as f64;
                let rate = (at.tokens - logged.1) as f64 / logged.0.elapsed().as_secs_f64().max(1e-9);
                let (step, tokens, seconds) = (at.step, at.tokens, at.seconds);
                let tokens_per_second = rate.round();
                folder.push(Row::Train { step, epoch, loss, lr, grad_norm, tokens, seconds, tokens_per_second })?;
                progress.loss(step, loss, lr, &format!("epoch {epoch}"));
                (at.loss_sum, at.loss_count) = (0.0, 0);
                logged = (Instant::now(), at.tokens);
            }

            // Time for an evaluation? The last one must fit into the time limit.
            let reserve = 5.0 + 1.5 * evaluation_seconds;
            let time_up = plan.limit.is_up(reserve, started);
            let due = if t.eval_every == 0 { end_of_epoch } else { at.step.is_multiple_of(t.eval_every) };
            if due || end || time_up {
                let evaluation = answering.evaluate(&model, &plan.dev, &plan.task, &table)?;
                evaluation_seconds = evaluation.seconds;
                at.seconds = seconds_before + started.elapsed().as_secs_f64();
                let value = evaluation.score.value(t.metric);
                let best = at.place.best.is_none_or(|best| value > best);
                if best {
                    at.place.best = Some(value);
                    checkpoint::save_seq2seq(out, &model)?;
                    folder.write(PREDICTIONS, predictions(plan, &evaluation).as_bytes())?;
                }
                // An evaluation that only the time limit caused does not count as one without progress.
                at.place.without_better = if best { 0 } else { at.place.without_better + u64::from(due || end) };
                folder.push(dev_row(&evaluation, &at, epoch, best))?;
                folder.draw()?;
                progress.line(&describe(&evaluation, &at, epoch, best));
                logged = (Instant::now(), at.tokens);
            }
            if end_of_epoch {
                (at.place.epoch, at.place.batch) = (at.place.epoch + 1, 0);
            }

            // Stop, or go on?
            let stop = if end {
                Some(Ending::Complete)
            } else if t.patience > 0 && at.place.without_better >= t.patience {
                Some(Ending::Patience)
            } else if time_up {
                Some(Ending::Time)
            } else {
                interrupt.requested().then_some(Ending::Interrupt)
            };
            let save_due = t.save_minutes > 0.0 && saved.elapsed().as_secs_f64() >= t.save_minutes * 60.0;
            if stop.is_some() || save_due {
                at.rows = folder.rows().len();
                at.finished = matches!(stop, Some(Ending::Complete | Ending::Patience));
                at.save(out, model.parameters(), optimizer.as_ref())?;
                (saved, saved_step) = (Instant::now(), at.step);
            }
            if let Some(stop) = stop {
                ending = stop;
                break 'training;
            }
            if end_of_epoch {
                break;
            }
        }
    }
    progress.finish();
    ensure!(saved_step == at.step, "training ended at step {} without saving its state", at.step);
    Ok(ending)
}

/// The model before its first step: random, or that of `--from`.
fn first_weights(plan: &Plan) -> Result<Seq2Seq> {
    match &plan.from {
        Some(from) => {
            let weights = from.parameters().iter().map(|(weight, tensor)| (*weight, tensor.detach().copy())).collect();
            Seq2Seq::from_weights(&plan.model, weights, plan.device)
        }
        None => Seq2Seq::new(&plan.model, derive_seed(plan.config.train.seed, Purpose::Weights, 0) as i64, plan.device),
    }
}

/// The lines of [`PREDICTIONS`].
fn predictions(plan: &Plan, evaluation: &Evaluation) -> String {
    let line = |(target, answer): (&String, &Option<String>)| {
        let right = answer.as_ref() == Some(target);
        json!({ "target": target, "answer": answer, "right": right }).to_string() + "\n"
    };
    plan.dev.targets.iter().zip(&evaluation.answers).map(line).collect()
}

fn dev_row(evaluation: &Evaluation, at: &State<Place>, epoch: u64, best: bool) -> Row {
    let score = evaluation.score;
    Row::Dev {
        step: at.step,
        epoch,
        loss: evaluation.loss,
        exact_match: score.exact_match,
        macro_f1: score.labels.map(|(f1, _)| f1),
        no_label: score.labels.map(|(_, none)| none),
        best,
        seconds: at.seconds,
    }
}

fn describe(evaluation: &Evaluation, at: &State<Place>, epoch: u64, best: bool) -> String {
    let score = match evaluation.score.labels {
        None => format!("exact match {:.4}", evaluation.score.exact_match),
        Some((f1, none)) => {
            format!("accuracy {:.4}  macro F1 {f1:.4}  {none} answers are no label", evaluation.score.exact_match)
        }
    };
    let kept = if best { "  best, kept" } else { "" };
    format!("step {}  epoch {epoch}  dev loss {:.4}  {score}  {:.0} s{kept}", at.step, evaluation.loss, at.seconds)
}

/// Tells on stderr what is about to happen.
fn announce(plan: &Plan, total: u64, at: &State<Place>) {
    let targets = match &plan.task {
        Task::Sequences => "sequences".to_owned(),
        Task::Labels(labels) => format!("the names of {} classes", labels.names.len()),
    };
    eprintln!("{}", plan.fingerprint.config.trim_end());
    eprintln!(
        "{} parameters; {} training pairs ({} inputs cut to {} tokens), {} dev pairs; targets are {targets}, answers have {} \
         tokens at most; {} with {} threads",
        plan.model.parameters(),
        plan.train.ids.len(),
        plan.train.cut,
        plan.config.train.max_length,
        plan.dev.ids.len(),
        plan.max_tokens,
        device_name(plan.device),
        tch::get_num_threads()
    );
    if at.step > 0 {
        eprintln!("resuming after step {} of {total}", at.step);
    } else {
        eprintln!("{total} steps");
    }
}
