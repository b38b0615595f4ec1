//! Writes small bundles to start fuzzing with: one per mixer and norm.
//!
//!     seeds DIRECTORY

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("give a directory")?);
    std::fs::create_dir_all(&directory)?;
    for (name, bytes) in kinglet_fuzz::models()? {
        std::fs::write(directory.join(format!("{name}.kinglet")), bytes)?;
    }
    Ok(())
}
