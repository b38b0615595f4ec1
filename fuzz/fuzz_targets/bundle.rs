//! Any bytes are an error, or a bundle that can be read and run to its end without a panic or an out-of-bounds read.
#![no_main]

use kinglet::answer::Answer;
use kinglet::backend::Backend;
use kinglet::bundle::{Buffer, Bundle};
use kinglet::engine::native::{NativeEngine, scratch_bytes};
use kinglet::spec::Task;
use kinglet::stream::Stream;
use kinglet::vector::normalize;
use libfuzzer_sys::fuzz_target;

/// Rows per chunk: few, so that a short text has several chunks.
const CHUNK: usize = 3;
/// Larger arenas are skipped: dilations may need a lot of memory, which is not a bug.
const MOST_SCRATCH: usize = 1 << 24;

fuzz_target!(|bytes: &[u8]| {
    let buffer = Buffer::new(bytes);
    let _ = Bundle::peek_config(bytes);
    if let Ok(bundle) = Bundle::new(buffer.as_slice()) {
        run(bundle);
    }
    if let Ok(bundle) = Bundle::new_unverified(buffer.as_slice()) {
        run(bundle);
    }
});

fn run(bundle: Bundle<'_>) {
    let config = bundle.config();
    let classes = if config.task == Task::Embed { 0 } else { config.num_labels };
    assert_eq!(bundle.labels().iter().count(), classes);
    assert!(bundle.sections().all(|section| section.offset + section.bytes <= bundle.as_bytes().len()));
    assert_eq!(bundle.weights().embedding(config.vocab_size as u32), None);
    let (need, mut logits) = (scratch_bytes(config, CHUNK), vec![0.0; config.num_labels]);
    if need > MOST_SCRATCH {
        return;
    }
    let mut scratch = vec![0; need];
    for backend in Backend::all() {
        let Ok(mut engine) = NativeEngine::with_chunk(bundle.clone(), &mut scratch, backend, CHUNK) else {
            panic!("an arena of the size asked for is refused");
        };
        let mut stream = Stream::new(&mut engine);
        for part in [&b"Wake me\xff"[..], b" at 7", " \u{130}dea".as_bytes()] {
            let _ = stream.push(part);
            let _ = stream.snapshot(&mut logits);
        }
        let finished = stream.finish(&mut logits).is_ok();
        let mut probabilities = vec![0.0; logits.len()];
        if finished && config.task != Task::Embed {
            let decision = bundle.decision();
            // Weights may be so large that scores are not finite.
            if let Ok(answer) = Answer::from_logits(&logits, decision, &mut probabilities) {
                assert_eq!(answer.is_multi_label(), config.task == Task::MultiLabel);
                assert_eq!(answer.set().is_some(), decision.is_calibrated());
                assert!(answer.labels().count() <= config.num_labels);
                assert!(answer.probabilities().iter().all(|p| (0.0..=1.0).contains(p)));
            }
        }
        if finished && config.task == Task::Embed && normalize(&mut logits).is_ok() {
            assert!(logits.iter().all(|value| value.abs() <= 1.0 + 1e-6));
        }
    }
}
