//! The model that is part of the library with the feature `builtin-model`.

use super::file::BundleFile;
use super::model::Model;
use crate::bundle::Aligned;
use crate::error::Error;

/// The built-in model as exported: 150 everyday intents, and out of scope.
static BUILTIN: &Aligned<[u8]> = &Aligned(*include_bytes!("../../models/intents.kinglet"));

/// Returns the built-in model, which is part of the library with the feature `builtin-model`.
///
/// Its checksums are not compared: they are those of the program itself.
///
/// # Errors
/// Never with an unchanged library.
pub fn builtin() -> Result<Model, Error> {
    Ok(Model::new(BundleFile::from_static(&BUILTIN.0), false)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::Bundle;

    #[test]
    fn the_built_in_model_is_whole() {
        let bundle = Bundle::new(&BUILTIN.0).unwrap();
        assert_eq!(bundle.labels().get(0), Some("accept_reservations"));
        assert_eq!(bundle.as_bytes().as_ptr().addr() % 64, 0);
    }
}
