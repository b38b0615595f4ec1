//! `kinglet`: text in, label out.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
