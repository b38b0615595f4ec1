//! The boards' code on the host: lines cut anywhere, and bad input.

use firmware::{Arena, CONFIG, Failure, Line, MODEL, Received, STACK, Session, arena_bytes, engine};
use kinglet::Error;
use kinglet::backend::Backend;
use kinglet::bundle::{Buffer, BundleError};
use kinglet::engine::native::scratch_bytes;

const CHUNK: usize = 8;
const TEXTS: &str = include_str!("../../golden/texts.txt");
const LINES: &str = include_str!("../../golden/intents-nano.txt");
const NEED: usize = arena_bytes(CHUNK, 64 * 1024);

/// Returns the output for `input` that arrives `part` bytes at a time.
fn lines(input: &[u8], part: usize, backend: Backend) -> Result<String, Failure> {
    let mut arena = vec![0xff; NEED];
    let mut engine = engine(&MODEL.0, &mut arena, backend, CHUNK)?;
    let mut session = Session::new(&mut engine);
    let mut output = String::new();
    for mut bytes in input.chunks(part) {
        while !bytes.is_empty() {
            session.take(&mut bytes)?.iter().for_each(|answer| output += &format!("{answer}\n"));
        }
    }
    session.end()?.iter().for_each(|answer| output += &format!("{answer}\n"));
    Ok(output + &format!("{}\n", session.all()))
}

#[test]
fn the_golden_lines_come_out_however_the_texts_are_cut() -> Result<(), Failure> {
    for backend in Backend::all() {
        for part in [1, 7, 128, TEXTS.len()] {
            assert_eq!(lines(TEXTS.as_bytes(), part, backend)?, LINES, "parts of {part}, {}", backend.name());
        }
    }
    Ok(())
}

#[test]
fn the_last_line_needs_no_end_and_an_empty_one_is_a_text() -> Result<(), Failure> {
    let all = |input: &str| lines(input.as_bytes(), 3, Backend::SCALAR);
    assert_eq!(all(TEXTS.trim_end())?, LINES);
    assert_eq!(all("")?.lines().count(), 1);
    assert_eq!(all("\n\nwake me")?.lines().count(), 4);
    assert_eq!(all("a\n")?, all("a")?);
    assert_ne!(all("a\n")?, all("a\n\n")?);
    Ok(())
}

#[test]
fn a_damaged_model_and_a_small_arena_are_refused_with_a_reason() {
    let mut model = Buffer::new(&MODEL.0);
    model.as_mut_slice().last_mut().iter_mut().for_each(|byte| **byte ^= 1);
    let refused = engine(model.as_slice(), &mut [], Backend::SCALAR, CHUNK).err();
    assert!(matches!(refused, Some(Failure::Bundle(Error::Bundle(BundleError::Checksum { .. })))), "{refused:?}");

    let mut arena = vec![0; NEED - 1];
    let refused = engine(&MODEL.0, &mut arena, Backend::SCALAR, CHUNK).err();
    let Some(Failure::Engine(Error::ScratchTooSmall { need, got })) = refused else { panic!("{refused:?}") };
    assert_eq!((need, got), (NEED, NEED - 1));
}

#[test]
fn an_arena_is_given_out_once() {
    static ARENA: Arena<100> = Arena::new();
    assert_eq!([ARENA.take().len(), ARENA.take().len()], [100, 0]);
}

#[test]
#[should_panic(expected = "do not fit")]
fn an_arena_that_leaves_no_stack_is_refused() {
    arena_bytes(CHUNK, scratch_bytes(&CONFIG, CHUNK) + STACK - 1);
}

#[test]
fn a_line_over_a_wire_ends_with_either_end_or_both_and_has_a_bound() {
    let mut line = Line::<4>::new();
    let mut got = Vec::new();
    for &byte in b"ab\r\n\n\rabcd\nabcde\nx\r" {
        match line.push(byte) {
            Received::More => {}
            Received::Whole(text) => got.push(text.to_vec()),
            Received::TooLong { max } => got.push(format!("more than {max}").into_bytes()),
        }
    }
    assert_eq!(got, [b"ab".as_slice(), b"abcd", b"more than 4", b"x"]);
    assert_eq!(line.push(b'y'), Received::More);
    line.clear();
    assert_eq!(line.push(b'z'), Received::More);
    assert_eq!(line.push(b'\n'), Received::Whole(b"z"));
}
