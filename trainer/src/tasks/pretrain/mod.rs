//! `kinglet-train pretrain`: the training loop of the encoder-decoder, and what it leaves.
//!
//! Beside what every run leaves ([`crate::training::folder`]) there are
//!
//! | file | what |
//! |---|---|
//! | `model.safetensors`, `seq2seq.json` | the last weights, f32, and their configuration |
//! | [`ENCODER`] | the encoder alone, f16, without sentinels, with its card: what `finetune --from` starts from |

pub mod card;
pub mod config;
pub mod evaluate;
pub mod plan;
pub mod row;
pub mod team;

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use tch::{Device, Kind, Tensor};

use crate::batch::Seq2SeqBatch;
use crate::checkpoint::{self, ENCODER};
use crate::device::set_tf32;
use crate::interrupt::Interrupt;
use crate::machine::{Environment, device_name};
use crate::model::Mode;
use crate::model::seq2seq::{Seq2Seq, Seq2SeqWeight};
use crate::objective::Example;
use crate::optim::{Optimizer, clear_gradients, clip_gradients};
use crate::training::progress::Progress;
use crate::random::{Purpose, derive_seed};
use crate::training::run::Ending;
use crate::training::folder::{self, RunFolder};
use crate::training::state::State;
use evaluate::{Evaluation, evaluate};
use plan::Plan;
use row::Row;
use team::Gone;

/// Pre-trains according to `plan` and leaves the last weights, the logs and the state for `--resume` in `plan.out`.
///
/// # Errors
/// A file that cannot be written, a loss that is not finite, or the loss of another process; what was saved before stays, and
/// after the loss of another process the last step's state is saved.
pub fn pretrain(plan: &Plan, interrupt: &Interrupt) -> Result<Ending> {
    let t = &plan.config.train;
    let (out, device, team) = (&plan.out, plan.device, &plan.team);
    let started = Instant::now();
    if device.is_cuda() {
        set_tf32(t.tf32)?;
    }

    // The model, the optimizer and where training stands; the same in every process.
    let seed = derive_seed(t.seed, Purpose::Weights, 0) as i64;
    let model = Seq2Seq::new(&plan.model, seed, device)?;
    let mut optimizer = t.optimizer_config().build(model.parameters());
    let mut at = plan.resume.clone().unwrap_or_else(|| State::start(plan.fingerprint.clone()));
    if plan.resume.is_some() {
        at.restore(out, model.parameters(), optimizer.as_mut())?;
    }
    team.share(model.parameters())?;
    let seconds_before = at.seconds;

    // The folder: what the run is, before its first step. The first process alone writes and speaks.
    let mut folder = if team.leads() { Some(open_folder(plan, &at)?) } else { None };
    if at.finished {
        if team.leads() {
            eprintln!("{} is finished: {} steps done, nothing to resume", out.display(), at.step);
        }
        return Ok(Ending::Complete);
    }
    if team.leads() {
        announce(plan, &at);
    }

    let schedule = t.lr_schedule();
    let mode = Mode {
        train: true,
        dropout: t.dropout,
        drop_connect: t.drop_connect,
        bf16: t.bf16,
        recompute: t.gradient_checkpointing,
    };
    let mut loader = plan.loader(at.step)?;
    let part = t.batch_size / team.size() / t.accumulate;
    // The losses since the last row are added up where they are computed: nothing waits for the device. The saved sum is that
    // of all processes, and goes on in the first.
    let mut losses = Tensor::from(if team.leads() { at.loss_sum } else { 0.0 }).to_device(device);
    let mut evaluation_seconds: Option<f64> = None;
    let mut progress = team.leads().then(|| Progress::new(at.step, t.steps));
    let (mut logged, mut logged_tokens, mut logged_wait) = (started, at.tokens, loader.waited());
    let (mut saved, mut saved_step) = (started, at.step);

    let mut steps = || loop {
        // One step, in parts. The gradient is that of the mean over all target tokens of all processes.
        let examples = loader.next_batch()?;
        let count = |of: fn(&Example) -> usize| examples.iter().map(|e| of(e) as f64).sum::<f64>();
        let mine = [count(|e| e.inputs.len()), count(|e| e.targets.len())];
        let [tokens, targets] = team.sum(mine)?;
        clear_gradients(model.parameters());
        // Dropout depends on the seed, the step and the process alone.
        let stream = derive_seed(t.seed, Purpose::Step, at.step);
        tch::manual_seed(derive_seed(stream, Purpose::Step, team.rank() as u64) as i64);
        let mut step_losses = losses.copy();
        for examples in examples.chunks(part) {
            let batch = joined(examples, device);
            let loss = model.loss(&batch, t.z_loss, &mode);
            (loss.sum / targets).backward();
            step_losses += loss.cross_entropy.to_kind(Kind::Double);
        }
        team.sum_gradients(model.parameters())?;
        let end = at.step + 1 == t.steps;
        let log = end || (at.step + 1).is_multiple_of(t.log_every);
        let norm = if log || t.clip_norm > 0.0 { Some(clip_gradients(model.parameters(), t.clip_norm)) } else { None };
        let lr = schedule.at(at.step, t.steps);
        optimizer.step(lr);

        // Where training stands now.
        losses = step_losses;
        at.step += 1;
        at.tokens += tokens as u64;
        at.loss_count += targets as u64;
        at.seconds = seconds_before + started.elapsed().as_secs_f64();
        if let Some(progress) = &progress {
            progress.step(at.step);
        }

        // Stop, save, or go on? One process's clock or signal decides for all. The last evaluation, a forward pass for each
        // step's forward and backward, must fit into the limit.
        let rate = (at.tokens as f64 / at.seconds.max(1e-9)).max(1.0);
        let reserve = 5.0 + 1.5 * evaluation_seconds.unwrap_or(plan.held_out.tokens as f64 / (2.0 * rate));
        let save_due = t.save_minutes > 0.0 && saved.elapsed().as_secs_f64() >= t.save_minutes * 60.0;
        let asked = [plan.limit.is_up(reserve, started), interrupt.requested(), save_due].map(f64::from);
        let asked = team.sum(asked)?;
        let [time_up, interrupted, save_due] = asked.map(|processes| processes > 0.0);
        let stop = if end {
            Some(Ending::Complete)
        } else if time_up {
            Some(Ending::Time)
        } else {
            interrupted.then_some(Ending::Interrupt)
        };
        let save = save_due || stop.is_some();

        // The sum of the losses, checked before anything is written: it stays infinite or NaN once it is.
        if log || save {
            [at.loss_sum] = team.sum([losses.double_value(&[])])?;
            let norm = norm.unwrap_or_else(|| clip_gradients(model.parameters(), 0.0));
            if !(at.loss_sum.is_finite() && norm.is_finite()) {
                bail!(
                    "the sum of losses is {} and the gradient's norm {norm} at step {}: lower train.lr (now {}), raise \
                     train.warmup_steps (now {}) or set train.clip_norm (now {}); the last saved state is good",
                    at.loss_sum,
                    at.step,
                    t.lr,
                    t.warmup_steps,
                    t.clip_norm
                );
            }
        }

        // A row of training loss.
        if log {
            let loss = at.loss_sum / at.loss_count as f64;
            let elapsed = logged.elapsed().as_secs_f64().max(1e-9);
            if let (Some(folder), Some(progress)) = (&mut folder, &mut progress) {
                folder.push(Row::Train {
                    step: at.step,
                    loss,
                    lr,
                    grad_norm: norm.unwrap_or_default(),
                    tokens: at.tokens,
                    seconds: at.seconds,
                    tokens_per_second: ((at.tokens - logged_tokens) as f64 / elapsed).round(),
                    waited_seconds: (loader.waited() - logged_wait).as_secs_f64(),
                })?;
                progress.loss(
                    at.step,
                    loss,
                    lr,
                    &format!("{:.0} tokens/s", (at.tokens - logged_tokens) as f64 / elapsed),
                );
            }
            (at.loss_sum, at.loss_count) = (0.0, 0);
            losses = losses.zeros_like();
            (logged, logged_tokens, logged_wait) = (Instant::now(), at.tokens, loader.waited());
        }

        // An evaluation.
        if end || time_up || (t.eval_every > 0 && at.step.is_multiple_of(t.eval_every)) {
            let evaluation = evaluate(&model, &plan.held_out, team)?;
            evaluation_seconds = Some(evaluation.seconds);
            at.seconds = seconds_before + started.elapsed().as_secs_f64();
            if let (Some(folder), Some(progress)) = (&mut folder, &progress) {
                let Evaluation { loss, bits_per_byte, targets, .. } = evaluation;
                let (step, seconds) = (at.step, at.seconds);
                folder.push(Row::Valid { step, loss, bits_per_byte, targets, seconds })?;
                folder.draw()?;
                progress.line(&format!(
                    "step {step}  held-out loss {loss:.4} nats a token  {bits_per_byte:.4} bits a byte  {seconds:.0} s"
                ));
            }
            (logged, logged_tokens, logged_wait) = (Instant::now(), at.tokens, loader.waited());
        }

        // The state, and the weights as they are now.
        if save {
            if let Some(folder) = &folder {
                at.rows = folder.rows().len();
                at.finished = stop == Some(Ending::Complete);
                save_all(plan, &mut at, folder.rows(), &model, optimizer.as_ref())?;
            }
            (saved, saved_step) = (Instant::now(), at.step);
        }
        if let Some(stop) = stop {
            return Ok(stop);
        }
    };
    let ending: Result<Ending> = steps();
    if let Some(progress) = &progress {
        progress.finish();
    }

    // Where another process has gone, the last whole step is kept: weights change only after all gradients are there.
    match (ending, &folder) {
        (Err(error), Some(folder)) if error.is::<Gone>() && at.step > saved_step => {
            at.rows = folder.rows().len();
            // The others' losses are not known.
            at.loss_sum = losses.double_value(&[]) * team.size() as f64;
            ensure!(at.loss_sum.is_finite(), "{error:#}; the loss is not finite either, so that nothing was saved");
            save_all(plan, &mut at, folder.rows(), &model, optimizer.as_ref())?;
            Err(error.context(format!("the state after step {} is saved: --resume continues from there", at.step)))
        }
        (ending, _) => ending,
    }
}

/// Examples as one batch on `device`.
fn joined(examples: &[Example], device: Device) -> Seq2SeqBatch {
    let pairs: Vec<(&[u32], &[u32])> = examples.iter().map(|e| (e.inputs.as_slice(), e.targets.as_slice())).collect();
    Seq2SeqBatch::new(&pairs, device)
}

/// Opens the run folder and writes what the run is.
fn open_folder(plan: &Plan, at: &State<()>) -> Result<RunFolder<Row>> {
    let folder = RunFolder::open(&plan.out, at.rows, at.step)?;
    let environment = Environment::of(plan.device);
    folder.write(run_folder::CONFIG, plan.fingerprint.config.as_bytes())?;
    folder.write(run_folder::ENVIRONMENT, (serde_json::to_string_pretty(&environment)? + "\n").as_bytes())?;
    Ok(folder)
}

/// Saves the state for `--resume`, the whole model, and its encoder with a card.
fn save_all(plan: &Plan, at: &mut State<()>, rows: &[Row], model: &Seq2Seq, optimizer: &dyn Optimizer) -> Result<()> {
    at.save(&plan.out, model.parameters(), optimizer)?;
    checkpoint::save_seq2seq(&plan.out, model)?;
    let encoder = model.parameters().iter().filter_map(|(weight, tensor)| match weight {
        Seq2SeqWeight::Encoder(weight) => Some((*weight, tensor)),
        _ => None,
    });
    checkpoint::save_encoder(&plan.out.join(ENCODER), &plan.model.encoder, encoder, &plan.tokenizer)?;
    card::write(plan, at, rows)
}

/// Tells on stderr what is about to happen.
fn announce(plan: &Plan, at: &State<()>) {
    let t = &plan.config.train;
    eprintln!("{}", plan.fingerprint.config.trim_end());
    eprintln!(
        "{} parameters, {} of them in the encoder; {} corpus tokens, {} held-out examples; {} process(es) on {} with {} threads",
        plan.model.parameters(),
        plan.model.encoder.parameters(),
        plan.corpus.tokens(),
        plan.held_out.examples.len(),
        plan.team.size(),
        device_name(plan.device),
        tch::get_num_threads()
    );
    if at.step > 0 {
        eprintln!("resuming after step {} of {}", at.step, t.steps);
    } else {
        eprintln!("{} steps", t.steps);
    }
}
