//! From `push` to `finish` the native engine allocates nothing, on every backend; a counting allocator checks it.
//!
//! Each thread counts its own: the test harness allocates in another one when a test takes long.
#![cfg(feature = "alloc")]
// For x86_64-pc-windows-gnu, Clippy 1.96 reports initializers that are constant.
#![allow(clippy::missing_const_for_thread_local)]
#![allow(unsafe_code, missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kinglet::backend::Backend;
use kinglet::bundle::Bundle;
use kinglet::engine::Engine;
use kinglet::engine::native::NativeEngine;
use kinglet::stream::Stream;
use kinglet::vector::normalize;

#[allow(dead_code)]
#[path = "native/fixture.rs"]
mod fixture;

use fixture::{Model, Random};

struct Counting;

thread_local! {
    // Neither made nor dropped by code that could allocate.
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: each call goes on to the system's allocator with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promise is the one `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as above; `place` came from `System`.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the number of this thread's allocator calls while `f` runs.
fn calls(f: impl FnOnce()) -> usize {
    let before = CALLS.get();
    f();
    CALLS.get() - before
}

#[test]
fn nothing_is_allocated_from_push_to_finish() {
    assert!(calls(|| drop(std::hint::black_box(vec![1u8]))) >= 2, "the allocator counts");
    let text = "wake me at seven the Straße 字 \u{1F388} ".repeat(40);
    for (seed, (mixer, norm, pooling)) in fixture::kinds().into_iter().enumerate() {
        let model = Model::random(fixture::config(mixer, norm, pooling, 24, &[[7, 3, 1], [4, 1, 1]]), seed as u64);
        let bytes = model.bundle();
        let ids = fixture::ids(&mut Random(1), 300);
        let mut scratch = fixture::scratch(&model.config, 48);
        let mut out = [0.0; 5];
        for backend in Backend::all() {
            let counted = calls(|| {
                let bundle = Bundle::new(bytes.as_slice()).unwrap();
                let mut engine = NativeEngine::with_chunk(bundle, &mut scratch, backend, 48).unwrap();
                engine.logits(&ids, &mut out).unwrap();
                let mut stream = Stream::new(&mut engine);
                for part in text.as_bytes().chunks(7) {
                    stream.push(part).unwrap();
                    stream.snapshot(&mut out).unwrap();
                }
                stream.finish(&mut out).unwrap();
                normalize(&mut out).unwrap();
            });
            assert_eq!(counted, 0, "{mixer:?} {norm:?} {pooling:?} on {}", backend.name());
        }
    }
}
