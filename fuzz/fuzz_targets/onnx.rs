//! Any bytes are an error, or an ONNX file that export could have written: found before tract sees them, within a few times their size.
//!
//! Bytes that are a file but for their hashes get these, as from somebody who writes a hostile file.
#![no_main]

use kinglet_onnx::{ModelError, check, onnx::ModelProto, seal_all};
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    // Other bytes may decode to any size: that is what the check is for.
    if let Err(ModelError::NotOnnx { .. } | ModelError::Unexpected { .. }) = check(bytes) {
        return;
    }
    let Ok(mut model) = ModelProto::decode(bytes) else { panic!("what passed the check of its bytes is no ONNX file") };
    seal_all(&mut model);
    let sealed = model.encode_to_vec();
    assert!(sealed.len() <= bytes.len() + 4096, "{} bytes became {}", bytes.len(), sealed.len());
    if check(&sealed).is_ok() {
        // What is accepted once is accepted again, with the same hashes.
        seal_all(&mut model);
        assert_eq!(model.encode_to_vec(), sealed);
    }
});
