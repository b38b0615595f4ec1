//! The training loop, of all tasks and for any number of processes.

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use tch::{Kind, Tensor};

use crate::device::set_tf32;
use crate::interrupt::Interrupt;
use crate::machine::{cpu_prefers_bf16, device_name, slow_bf16};
use crate::optim::{Optimizer, clear_gradients, clip_gradients};
use crate::random::{Purpose, derive_seed};
use crate::training::folder::{self, RunFolder};
use crate::training::progress::{Progress, say};
use crate::training::row::{Row, Scored};
use crate::training::run::{Ending, Run};
use crate::training::state::State;
use crate::training::task::{Stage, Task};
use crate::training::team::Gone;

/// Trains `task` and writes its weights, the logs and the state for `--resume` to `run.out`.
///
/// # Errors
/// If a file cannot be written, a loss is not finite, or another process is lost. What was saved before remains, and
/// after the loss of another process the state of the last step is saved.
pub fn train<T: Task>(run: &Run, task: &mut T, interrupt: &Interrupt) -> Result<Ending> {
    let t = task.keys().clone();
    let (out, team) = (&run.out, &run.team);
    let started = Instant::now();
    if run.device.is_cuda() {
        set_tf32(t.tf32)?;
    }

    // The optimizer and the progress; the same in every process.
    let mut optimizer = t.optimizer_config().build(task.parameters());
    let mut at = run.resume.clone().unwrap_or_else(|| State::start(T::NAME, run.fingerprint.clone()));
    if run.resume.is_some() {
        at.restore(out, task.parameters(), optimizer.as_mut())?;
    }
    team.share(task.parameters())?;
    let (seconds_before, steps) = (at.seconds, task.steps());

    // The folder describes the run before its first step. Only the first process writes.
    let mut folder = if team.leads() { Some(open(run, task, &at)?) } else { None };
    if at.finished {
        let result = out.join(task.result());
        ensure!(
            !team.leads() || result.exists(),
            "{} is finished, but {} is missing, which cannot be made from the saved state; --force trains again",
            out.display(),
            result.display()
        );
        if let Some(folder) = folder.as_ref().filter(|folder| !task.is_complete(folder.path())) {
            let ending = if at.step == steps { Ending::Complete } else { Ending::Patience };
            say(&format!("{} is finished: {} steps done; its files are completed", out.display(), at.step));
            task.finish(run, folder, &at, ending, interrupt)?;
        } else if team.leads() {
            say(&format!("{} is finished: {} steps done, nothing to resume", out.display(), at.step));
        }
        return Ok(Ending::Complete);
    }
    if team.leads() && run.label.is_none() {
        announce(run, task, &at);
    }

    let mode = t.mode();
    let mut stage = task.stage(at.step);
    optimizer.scale_rates(&rates(task, at.step));
    // Losses since the last row are summed on their device, without waiting. The saved sum is that of all processes,
    // and continues in the first.
    let mut losses = Tensor::from(if team.leads() { at.loss_sum } else { 0.0 }).to_device(run.device);
    let mut evaluation_seconds: Option<f64> = None;
    let mut progress = team.leads().then(|| Progress::new(at.step, steps, run.label.as_deref()));
    let (mut logged, mut logged_tokens, mut logged_wait) = (started, at.tokens, task.waited());
    let (mut saved, mut saved_step) = (started, at.step);
    let mut announced = false;

    let mut training = || loop {
        // A stage begins without what the optimizer remembers of the one before.
        if at.step == stage.steps.end {
            stage = task.stage(at.step);
        }
        if at.step == stage.steps.start && at.step > 0 {
            optimizer = t.optimizer_config().build(task.parameters());
            optimizer.scale_rates(&rates(task, at.step));
            at.place.without_better = 0;
        }
        let Stage { name, steps: of_stage, schedule } = &stage;
        if let Some(progress) =
            progress.as_ref().filter(|_| !name.is_empty() && (at.step == of_stage.start || !announced))
        {
            progress.line(&format!("stage \"{name}\": steps {} to {}", of_stage.start + 1, of_stage.end));
        }
        announced = true;

        // One step, in parts. The gradient is that of the mean over all parts of all processes.
        let parts = task.parts(at.step, team)?;
        let counted = || parts.iter().filter(|part| part.counts);
        let mine = [counted().map(|part| part.tokens).sum(), counted().map(|part| part.weight).sum()];
        let [tokens, weight] = team.sum::<2>(mine)?;
        clear_gradients(task.parameters());
        // Dropout depends only on the seed, the step and the process.
        tch::manual_seed(task.dropout_seed(derive_seed(t.seed, Purpose::Step, at.step), team.rank()) as i64);
        let mut step_losses = losses.copy();
        for part in &parts {
            let loss = task.loss(part, weight, &mode);
            if part.counts {
                loss.share.backward();
                step_losses += loss.logged.to_kind(Kind::Double);
            } else {
                (loss.share * 0.0).backward();
            }
        }
        team.sum_gradients(task.parameters())?;
        let end = at.step + 1 == steps;
        let log = end || (at.step + 1).is_multiple_of(t.log_every);
        let norm = if log || t.clip_norm > 0.0 { Some(clip_gradients(task.parameters(), t.clip_norm)) } else { None };
        let lr = schedule.at(at.step - of_stage.start, of_stage.end - of_stage.start);
        optimizer.step(lr);

        // Update the progress.
        losses = step_losses;
        let epoch = task.epochs().map(|epochs| epochs.of(at.step) as u64 + 1);
        at.step += 1;
        at.tokens += tokens as u64;
        at.loss_count += task.count(weight) as u64;
        at.seconds = seconds_before + started.elapsed().as_secs_f64();
        if let Some(progress) = &progress {
            progress.step(at.step);
        }

        // Evaluate, save or stop? If any process runs out of time or receives a signal, all of them stop after the same step. The
        // last evaluation must fit into the time limit.
        let rate = (at.tokens as f64 / at.seconds.max(1e-9)).max(1.0);
        let reserve = 5.0 + 1.5 * evaluation_seconds.unwrap_or_else(|| task.evaluation_seconds(rate));
        let save_due = t.save_minutes > 0.0 && saved.elapsed().as_secs_f64() >= t.save_minutes * 60.0;
        let asked = [run.limit.is_up(reserve, started), interrupt.requested(), save_due].map(f64::from);
        let [time_up, interrupted, save_due] = team.sum(asked)?.map(|processes| processes > 0.0);
        let due = at.step == of_stage.end
            || if t.eval_every == 0 {
                task.epochs().is_some_and(|epochs| epochs.end_at(at.step))
            } else {
                at.step.is_multiple_of(t.eval_every)
            };
        let evaluate = due || time_up;
        let mut stop = if end {
            Some(Ending::Complete)
        } else if time_up {
            Some(Ending::Time)
        } else {
            interrupted.then_some(Ending::Interrupt)
        };

        // Check the sum of the losses before anything is written: it stays infinite or NaN once it is.
        if log || evaluate || save_due || stop.is_some() {
            [at.loss_sum] = team.sum([losses.double_value(&[])])?;
            let norm = norm.unwrap_or_else(|| clip_gradients(task.parameters(), 0.0));
            if !(at.loss_sum.is_finite() && norm.is_finite()) {
                bail!(
                    "the sum of losses is {} and the gradient's norm {norm} at step {}: lower train.lr (now {}), raise \
                     train.warmup_steps (now {}), set train.clip_norm (now {}){}; {}",
                    at.loss_sum,
                    at.step,
                    t.lr,
                    t.warmup_steps,
                    t.clip_norm,
                    T::ADVICE,
                    if saved_step > 0 { "the last saved state is good" } else { "no state was saved before" }
                );
            }
        }

        // A row of training loss.
        if log {
            let loss = at.loss_sum / at.loss_count as f64;
            let rate = (at.tokens - logged_tokens) as f64 / logged.elapsed().as_secs_f64().max(1e-9);
            if let (Some(folder), Some(progress)) = (&mut folder, &mut progress) {
                let (step, tokens, seconds, tokens_per_second) = (at.step, at.tokens, at.seconds, rate.round());
                let (grad_norm, waited) = (norm.unwrap_or_default(), task.waited().zip(logged_wait));
                let waited_seconds = waited.map(|(now, then)| (now - then).as_secs_f64());
                folder.push(Row::Train {
                    step,
                    epoch,
                    loss,
                    lr,
                    grad_norm,
                    tokens,
                    seconds,
                    tokens_per_second,
                    waited_seconds,
                })?;
                progress.loss(step, loss, lr, &format!("{}{rate:.0} tokens/s", of_epoch(epoch)));
            }
            (at.loss_sum, at.loss_count) = (0.0, 0);
            losses = losses.zeros_like();
            (logged, logged_tokens, logged_wait) = (Instant::now(), at.tokens, task.waited());
        }

        // An evaluation. One caused only by the time limit does not count as one without progress.
        if evaluate {
            let begun = Instant::now();
            let evaluation = task.evaluate(team)?;
            evaluation_seconds = Some(begun.elapsed().as_secs_f64());
            at.seconds = seconds_before + started.elapsed().as_secs_f64();
            let best = at.place.best.is_none_or(|best| evaluation.metric > best);
            if best {
                at.place.best = Some(evaluation.metric);
            }
            at.place.without_better = if best { 0 } else { at.place.without_better + u64::from(due) };
            if let (Some(folder), Some(progress)) = (&mut folder, &progress) {
                let kept = if best && task.keep(folder, &evaluation)? { "  best, kept" } else { "" };
                replace(run, task);
                let (step, seconds, loss) = (at.step, at.seconds, evaluation.loss);
                progress.line(&format!(
                    "step {step}  {}evaluation loss {loss:.4}  {}  {seconds:.0} s{kept}",
                    of_epoch(epoch),
                    evaluation.words
                ));
                if step == of_stage.end && !end {
                    progress.line(&format!("stage \"{name}\" ends with {}", evaluation.words));
                }
                folder.push(T::ROW(Scored { step, epoch, loss, scores: evaluation.scores, best, seconds }))?;
                folder.draw(T::LOSS, &loss_note(&task.handicaps()))?;
            }
            if of_stage.end == steps && !end && t.patience > 0 && at.place.without_better >= t.patience {
                stop = Some(Ending::Patience);
            }
            (logged, logged_tokens, logged_wait) = (Instant::now(), at.tokens, task.waited());
        }

        // The state, and the current weights.
        if save_due || stop.is_some() {
            if let Some(folder) = &folder {
                at.finished = matches!(stop, Some(Ending::Complete | Ending::Patience));
                save(run, task, folder, &mut at, optimizer.as_ref())?;
            }
            (saved, saved_step) = (Instant::now(), at.step);
        }
        if let Some(stop) = stop {
            return Ok(stop);
        }
    };
    let ending: Result<Ending> = training();
    if let Some(progress) = &progress {
        progress.finish();
    }

    match (ending, &folder) {
        // If another process has gone, the last complete step is kept: weights change only after all gradients have
        // arrived.
        (Err(error), Some(folder)) if error.is::<Gone>() && at.step > saved_step => {
            // The losses of the others are unknown.
            at.loss_sum = losses.double_value(&[]) * team.size() as f64;
            ensure!(at.loss_sum.is_finite(), "{error:#}; the loss is not finite either, so that nothing was saved");
            save(run, task, folder, &mut at, optimizer.as_ref())?;
            Err(error.context(format!("the state after step {} is saved: --resume continues from there", at.step)))
        }
        // What is a part of longer work is not looked at before it is complete.
        (Ok(ending), Some(folder)) if ending != Ending::Interrupt || run.label.is_none() => {
            task.finish(run, folder, &at, ending, interrupt)?;
            Ok(ending)
        }
        (ending, _) => ending,
    }
}

/// Opens the run folder and describes the run.
fn open<T: Task>(run: &Run, task: &T, at: &State) -> Result<RunFolder> {
    let folder = RunFolder::open(&run.out, at.rows, at.step)?;
    folder.write(folder::CONFIG, run.fingerprint.config.as_bytes())?;
    folder.write_json(folder::ENVIRONMENT, &run.environment)?;
    task.open(run, &folder)?;
    Ok(folder)
}

/// Saves the state for `--resume`, and what the task saves with it.
fn save<T: Task>(run: &Run, task: &T, folder: &RunFolder, at: &mut State, optimizer: &dyn Optimizer) -> Result<()> {
    at.rows = folder.rows().len();
    at.save(&run.out, task.parameters(), optimizer)?;
    task.save(run, folder, at)?;
    // The run can go on.
    run.replaced.settle();
    replace(run, task);
    Ok(())
}

/// Removes what --force replaces, if the run has weights of its own.
fn replace<T: Task>(run: &Run, task: &T) {
    if run.out.join(task.result()).exists() {
        run.replaced.discard();
    }
}

/// Returns what each parameter's learning rate is multiplied by in the stage that contains `step`.
fn rates<T: Task>(task: &T, step: u64) -> Vec<f64> {
    task.parameters().iter().map(|(parameter, _)| task.rate(parameter, step)).collect()
}

fn of_epoch(epoch: Option<u64>) -> String {
    epoch.map_or_else(String::new, |epoch| format!("epoch {epoch}  "))
}

/// Announces the run on stderr.
fn announce<T: Task>(run: &Run, task: &T, at: &State) {
    let processes = match run.team.size() {
        1 => String::new(),
        size => format!("{size} processes, "),
    };
    say(run.fingerprint.config.trim_end());
    say(&format!(
        "{}; {processes}{} with {} threads",
        task.describe(),
        device_name(run.device),
        tch::get_num_threads()
    ));
    if let Some(slow) = slow_bf16(task.keys().bf16, run.device, cpu_prefers_bf16()) {
        say(&format!("warning: {slow}"));
    }
    match (at.step, task.steps()) {
        (0, 1) => say("1 step"),
        (0, steps) => say(&format!("{steps} steps")),
        (step, steps) => say(&format!("resuming after step {step} of {steps}")),
    }
}

/// Returns the remark of the figure of losses.
fn loss_note(handicaps: &[&str]) -> String {
    match handicaps {
        [] => String::new(),
        all => format!("Training loss: with {}; evaluation: without, so it may lie below.", all.join(", ")),
    }
}
