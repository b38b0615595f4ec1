//! `kinglet-train finetune`: the training loop.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use kinglet::spec::Weight;
use tch::{Reduction, Tensor};

use crate::batch::{self, Batch, Batching};
use crate::tasks::classify::config::Metric;
use crate::tasks::classify::evaluate::{Evaluation, evaluate};
use crate::interrupt::Interrupt;
use crate::machine::{Environment, device_name};
use crate::model::{Classifier, Mode};
use crate::optim::{clear_gradients, clip_gradients};
use crate::commands::finetune::Plan;
use crate::training::progress::Progress;
use crate::random::{Purpose, derive_seed};
use crate::training::run::Ending;
use crate::training::folder::{self, Row, RunFolder};
use crate::training::state::{Place, State};
use crate::{
    card,
    checkpoint::{self, Start},
};

/// Dev texts whose logits go into the checkpoint, for export to compare with.
const GOLDEN_TEXTS: usize = 200;

/// Trains according to `plan` and leaves the best weights, the logs and the state for `--resume` in `plan.out`.
///
/// # Errors
/// A file that cannot be written, or a loss that is not finite; what was saved before stays.
pub fn finetune(plan: &Plan, interrupt: &Interrupt) -> Result<Ending> {
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
    let lengths: Vec<usize> = plan.train.ids.iter().map(Vec::len).collect();
    let batching = Batching { texts: t.batch_size, tokens: t.batch_tokens, window: t.bucket_batches };
    let epoch_of = |epoch| batch::epoch(&lengths, batching, t.seed, epoch);
    let total: u64 = (0..t.epochs).map(|epoch| epoch_of(epoch).len() as u64).sum();

    // The folder: what the run is, before its first step.
    let environment = Environment::of(device);
    let mut folder = RunFolder::open(out, at.rows, at.step)?;
    folder.write(run_folder::CONFIG, plan.fingerprint.config.as_bytes())?;
    folder.write(run_folder::ENVIRONMENT, (serde_json::to_string_pretty(&environment)? + "\n").as_bytes())?;
    for (file, bytes) in plan.tokenizer.iter() {
        folder.write(file, bytes)?;
    }
    if at.finished {
        eprintln!("{} is finished: {} steps done, nothing to resume", out.display(), at.step);
        return Ok(Ending::Complete);
    }
    announce(plan, total, &at);

    let schedule = t.lr_schedule();
    let class_weights = t.class_weights.resolve(&plan.train.labels, plan.labels.len()).map(|weights| {
        let weights: Vec<f32> = weights.iter().map(|&w| w as f32).collect();
        Tensor::from_slice(&weights).to_device(device)
    });
    let mode = Mode {
        train: true,
        dropout: t.dropout,
        drop_connect: t.drop_connect,
        bf16: t.bf16,
        recompute: t.gradient_checkpointing,
    };
    let dev_tokens: usize = plan.dev.ids.iter().map(Vec::len).sum();
    let mut evaluation_seconds: Option<f64> = None;
    let mut progress = Progress::new(at.step, total);
    let mut logged = (started, at.tokens);
    let (mut saved, mut saved_step) = (started, at.step);
    let mut ending = Ending::Complete;

    'training: while at.place.epoch < t.epochs {
        let batches = epoch_of(at.place.epoch);
        while let Some(indices) = batches.get(at.place.batch as usize) {
            // One step. Dropout depends on the seed and the step alone.
            tch::manual_seed(derive_seed(t.seed, Purpose::Step, at.step) as i64);
            let texts: Vec<&[u32]> = indices.iter().map(|&i| plan.train.ids[i].as_slice()).collect();
            let batch = Batch::new(&texts, device);
            let targets = batch::targets(indices.iter().map(|&i| plan.train.labels[i]), device);
            let logits = model.forward(&batch.ids, &batch.mask, &mode);
            let weights = class_weights.as_ref();
            let loss = logits.cross_entropy_loss(&targets, weights, Reduction::Mean, batch::IGNORED, t.label_smoothing);
            let loss_value = loss.double_value(&[]);
            loss.backward();
            let grad_norm = clip_gradients(model.parameters(), t.clip_norm);
            if !(loss_value.is_finite() && grad_norm.is_finite()) {
                progress.finish();
                bail!(
                    "the loss is {loss_value} and the gradient's norm {grad_norm} at step {} (epoch {}): lower train.lr \
                     (now {}), raise train.warmup_steps (now {}), set train.clip_norm (now {}), or check \
                     train.class_weights; the state before this step was not saved",
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
            at.tokens += batch.tokens as u64;
            at.loss_sum += loss_value;
            at.loss_count += 1;
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
            let rate = (at.tokens as f64 / at.seconds.max(1e-9)).max(1.0);
            let reserve = 5.0 + 1.5 * evaluation_seconds.unwrap_or(dev_tokens as f64 / rate);
            let time_up = plan.limit.is_up(reserve, started);
            let due = if t.eval_every == 0 { end_of_epoch } else { at.step.is_multiple_of(t.eval_every) };
            if due || end || time_up {
                let evaluation = evaluate(&model, &plan.dev.ids, &plan.dev.labels)?;
                evaluation_seconds = Some(evaluation.seconds);
                at.seconds = seconds_before + started.elapsed().as_secs_f64();
                let value = metric(&evaluation, t.metric);
                let best = at.place.best.is_none_or(|best| value > best);
                if best {
                    at.place.best = Some(value);
                    checkpoint::save(out, &model, &plan.labels, out)?;
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

    // The best weights get their golden logits, their record and their card.
    if ending == Ending::Interrupt || at.place.best.is_none() {
        return Ok(ending);
    }
    let best = checkpoint::load(out, tch::Device::Cpu)?.model;
    let texts: Vec<Vec<u32>> = plan.dev.ids.iter().take(GOLDEN_TEXTS).cloned().collect();
    checkpoint::golden(out, &best, &texts)?;
    card::write(plan, &folder, &at, &environment, ending.words())?;
    Ok(ending)
}

/// The model before its first step: random, or with the weights of `--from`. The head is taken over where the labels agree.
fn first_weights(plan: &Plan) -> Result<Classifier> {
    let seed = derive_seed(plan.config.train.seed, Purpose::Weights, 0) as i64;
    let mut model = Classifier::new(&plan.model, seed, plan.device)?;
    match &plan.from {
        Some((_, Start::Classifier(from))) if from.labels == plan.labels => model.copy_weights(&from.model)?,
        Some((_, from)) => model.copy_encoder(from.config(), from.weights())?,
        None => silence_unseen(&model, &plan.train.ids),
    }
    Ok(model)
}

/// Sets the embedding rows of ids that no training text has to zero, where they stay: their gradient is zero, and so is what
/// weight decay takes from them. A token that was never trained then adds nothing, instead of a random vector.
fn silence_unseen(model: &Classifier, texts: &[Vec<u32>]) {
    let mut seen = vec![0f32; model.config().vocab_size];
    for &id in texts.iter().flatten() {
        if let Some(seen) = seen.get_mut(id as usize) {
            *seen = 1.0;
        }
    }
    let rows = Tensor::from_slice(&seen).unsqueeze(1).to_device(model.device());
    for (_, tensor) in model.parameters().iter().filter(|(weight, _)| *weight == Weight::Embedding) {
        let _ = tch::no_grad(|| tensor.shallow_clone().g_mul_(&rows));
    }
}

fn metric(evaluation: &Evaluation, metric: Metric) -> f64 {
    let confusion = &evaluation.confusion;
    match metric {
        Metric::Accuracy => confusion.accuracy(),
        Metric::MacroF1 => confusion.macro_f1(),
        Metric::BinaryF1 => confusion.binary_f1().unwrap_or(0.0),
    }
}

fn dev_row(evaluation: &Evaluation, at: &State<Place>, epoch: u64, best: bool) -> Row {
    let confusion = &evaluation.confusion;
    Row::Dev {
        step: at.step,
        epoch,
        loss: evaluation.loss,
        accuracy: confusion.accuracy(),
        macro_f1: confusion.macro_f1(),
        binary_f1: confusion.binary_f1(),
        best,
        seconds: at.seconds,
    }
}

fn describe(evaluation: &Evaluation, at: &State<Place>, epoch: u64, best: bool) -> String {
    format!(
        "step {}  epoch {epoch}  dev loss {:.4}  accuracy {:.4}  macro F1 {:.4}  {:.0} s{}",
        at.step,
        evaluation.loss,
        evaluation.confusion.accuracy(),
        evaluation.confusion.macro_f1(),
        at.seconds,
        if best { "  best, kept" } else { "" }
    )
}

/// Tells on stderr what is about to happen.
fn announce(plan: &Plan, total: u64, at: &State<Place>) {
    eprintln!("{}", plan.fingerprint.config.trim_end());
    eprintln!(
        "{} parameters; {} training texts ({} cut to {} tokens), {} dev texts, {} classes; {} with {} threads",
        plan.model.parameters(),
        plan.train.ids.len(),
        plan.train.cut,
        plan.config.train.max_length,
        plan.dev.ids.len(),
        plan.labels.len(),
        device_name(plan.device),
        tch::get_num_threads()
    );
    if at.step > 0 {
        eprintln!("resuming after step {} of {total}", at.step);
    } else {
        eprintln!("{total} steps");
    }
}
