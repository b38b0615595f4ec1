//! The program of the emulated boards: texts from standard input, answers on standard output, all through the host
//! (semihosting).
//!
//! ```text
//! PROGRAM [--backend NAME] [--arena BYTES] < texts.txt
//! ```
//! Prints `label<TAB>fingerprint` for each line of input and last `all<TAB>SHA-256`, like `kinglet fingerprint`, and on
//! standard error, at the end, what it measured. `--backend` chooses the backend, by default the fastest; `--arena`
//! uses that many bytes of the arena, to show the engine's error when they are too few.
//!
//! Exit codes: 0 done; 1 the model or its memory is unsuitable; 2 wrong arguments, or the host does not answer.

use core::fmt;

use kinglet::backend::Backend;
use kinglet::engine::native::BorrowedEngine;
use semihosting::io::{self, Read, Write};
use semihosting::{eprintln, experimental::env, process};

use crate::clock::Clock;
use crate::{Failure, Session, engine, model, stack};

/// Bytes of the arguments, the program's name included.
const ARGUMENTS: usize = 256;
/// Bytes of one read.
const PART: usize = 128;

/// What the program was told.
struct Arguments {
    backend: Backend,
    arena: usize,
}

/// Why the program ends.
enum Problem {
    Argument(&'static str),
    Host(io::Error),
    Model(Failure),
}

impl Problem {
    fn code(&self) -> i32 {
        match self {
            Problem::Model(_) => 1,
            Problem::Argument(_) | Problem::Host(_) => 2,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Argument(what) => f.write_str(what),
            Problem::Host(error) => write!(f, "the host does not answer: {error}"),
            Problem::Model(failure) => failure.fmt(f),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Problem::Host(error)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Problem::Model(failure)
    }
}

fn arguments(arena: usize) -> Result<Arguments, Problem> {
    let mut found = Arguments { backend: Backend::detect(), arena };
    let words = env::args::<ARGUMENTS>()?;
    let mut words = words.into_iter().skip(1).map(|word| word.unwrap_or_default());
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_default();
        match word {
            "--backend" => {
                let backend = Backend::by_name(value);
                found.backend =
                    backend.ok_or(Problem::Argument("--backend: this program has no backend of that name"))?;
            }
            "--arena" => {
                let bytes = value.parse().ok().filter(|&bytes| bytes <= arena);
                found.arena = bytes.ok_or(Problem::Argument("--arena: a number of bytes, at most those there are"))?;
            }
            _ => return Err(Problem::Argument("usage: [--backend NAME] [--arena BYTES] < texts.txt")),
        }
    }
    Ok(found)
}

/// What was done, in ticks.
#[derive(Default)]
struct Work {
    texts: u32,
    tokens: u64,
    ticks: u64,
}

/// Answers all texts of the input.
#[inline(never)] // what the start puts on the stack is gone by then, what this does is not there yet
fn answer(engine: &mut BorrowedEngine<'_>, clock: &impl Clock) -> Result<Work, Problem> {
    let (mut input, mut output) = (io::stdin()?, io::stdout()?);
    let mut session = Session::new(engine);
    let mut work = Work::default();
    let mut buffer = [0; PART];
    loop {
        let count = input.read(&mut buffer)?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        loop {
            // What is measured is the work on a text: not the host, nor the printing.
            let begin = clock.ticks();
            let found = if count == 0 { session.end()? } else { session.take(&mut rest)? };
            work.ticks += clock.ticks() - begin;
            if let Some(answer) = found {
                writeln!(output, "{answer}")?;
                work.texts += 1;
                work.tokens += u64::from(answer.tokens);
            }
            if rest.is_empty() {
                break;
            }
        }
        if count == 0 {
            break;
        }
    }
    writeln!(output, "{}", session.all())?;
    Ok(work)
}

fn all(arena: &'static mut [u8], chunk: usize, clock: &impl Clock) -> Result<(), Problem> {
    let bytes = arena.len();
    let arguments = arguments(bytes)?;
    let arena = arena.get_mut(..arguments.arena).unwrap_or_default();
    let begin = clock.ticks();
    let mut engine = engine(model(), arena, arguments.backend, chunk);
    // Not moved out of the result: there would be two places for it on the stack.
    let engine = match &mut engine {
        Ok(engine) => engine,
        Err(failure) => return Err(failure.clone().into()),
    };
    let start = clock.ticks() - begin;
    let Work { texts, tokens, ticks } = answer(engine, clock)?;
    let (backend, hz, stack) = (arguments.backend.name(), clock.hz(), stack::deepest());
    eprintln!(
        "measured backend={backend} texts={texts} tokens={tokens} ticks={ticks} start={start} hz={hz} arena={bytes} stack={stack}"
    );
    Ok(())
}

/// Runs the program and ends it with its exit code.
///
/// `arena`: [`crate::arena_bytes`]`(chunk, _)` bytes.
pub fn run(arena: &'static mut [u8], chunk: usize, clock: &impl Clock) -> ! {
    stack::paint();
    let code = match all(arena, chunk, clock) {
        Ok(()) => 0,
        Err(problem) => {
            eprintln!("error: {problem}");
            problem.code()
        }
    };
    process::exit(code)
}
