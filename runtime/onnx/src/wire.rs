//! The bytes of an ONNX file before they are decoded: only fields that export writes, and no more of each than a model can have.
//!
//! Decoding makes a structure of some 200 bytes of a field that takes two bytes of the file, so a small file could take gigabytes. This pass
//! allocates nothing; what it lets through decodes to a few times the file and at most some 30 MB more.

/// What a field holds.
enum Kind {
    /// A number, of which the field has at most so many, one by one or packed.
    Varints,
    /// A number of four bytes.
    Fixed32,
    /// Text or bytes of at most so many bytes.
    Bytes(usize),
    Message(&'static Schema),
}

/// A field that export writes.
struct Field {
    number: u64,
    kind: Kind,
    /// The most of it in one message.
    most: usize,
}

struct Schema {
    name: &'static str,
    fields: &'static [Field],
}

const fn field(number: u64, most: usize, kind: Kind) -> Field {
    Field { number, kind, most }
}

const ANY: usize = usize::MAX;
/// Longest name of a node or tensor.
const NAME: usize = 512;
/// Most nodes, and most stored tensors, of a graph: 48 layers of dynamic convolution of 255 taps have fewer.
const MOST: usize = 65_536;

/// Numbers of fields: `onnx.proto` of ONNX 1.17.
static MODEL: Schema = Schema {
    name: "model",
    fields: &[
        field(1, 1, Kind::Varints),
        field(2, 1, Kind::Bytes(NAME)),
        field(3, 1, Kind::Bytes(NAME)),
        field(7, 1, Kind::Message(&GRAPH)),
        field(8, 4, Kind::Message(&OPSET)),
        field(14, 32, Kind::Message(&ENTRY)),
    ],
};
static OPSET: Schema =
    Schema { name: "operator set", fields: &[field(1, 1, Kind::Bytes(NAME)), field(2, 1, Kind::Varints)] };
static ENTRY: Schema =
    Schema { name: "metadata", fields: &[field(1, 1, Kind::Bytes(NAME)), field(2, 1, Kind::Bytes(ANY))] };
static GRAPH: Schema = Schema {
    name: "graph",
    fields: &[
        field(1, MOST, Kind::Message(&NODE)),
        field(2, 1, Kind::Bytes(NAME)),
        field(5, MOST, Kind::Message(&TENSOR)),
        field(11, 8, Kind::Message(&VALUE)),
        field(12, 8, Kind::Message(&VALUE)),
    ],
};
static NODE: Schema = Schema {
    name: "node",
    fields: &[
        field(1, 8, Kind::Bytes(NAME)),
        field(2, 2, Kind::Bytes(NAME)),
        field(3, 1, Kind::Bytes(NAME)),
        field(4, 1, Kind::Bytes(NAME)),
        field(5, 8, Kind::Message(&ATTRIBUTE)),
        field(7, 1, Kind::Bytes(NAME)),
    ],
};
static ATTRIBUTE: Schema = Schema {
    name: "attribute",
    fields: &[
        field(1, 1, Kind::Bytes(NAME)),
        field(2, 1, Kind::Fixed32),
        field(3, 1, Kind::Varints),
        field(5, 1, Kind::Message(&TENSOR)),
        field(8, 8, Kind::Varints),
        field(20, 1, Kind::Varints),
    ],
};
static TENSOR: Schema = Schema {
    name: "tensor",
    fields: &[
        field(1, 8, Kind::Varints),
        field(2, 1, Kind::Varints),
        field(8, 1, Kind::Bytes(NAME)),
        field(9, 1, Kind::Bytes(ANY)),
    ],
};
static VALUE: Schema =
    Schema { name: "value", fields: &[field(1, 1, Kind::Bytes(NAME)), field(2, 1, Kind::Message(&TYPE))] };
static TYPE: Schema = Schema { name: "type", fields: &[field(1, 1, Kind::Message(&TENSOR_TYPE))] };
static TENSOR_TYPE: Schema =
    Schema { name: "tensor type", fields: &[field(1, 1, Kind::Varints), field(2, 1, Kind::Message(&SHAPE))] };
static SHAPE: Schema = Schema { name: "shape", fields: &[field(1, 8, Kind::Message(&DIMENSION))] };
static DIMENSION: Schema =
    Schema { name: "dimension", fields: &[field(1, 1, Kind::Varints), field(2, 1, Kind::Bytes(NAME))] };

/// Fields of `ModelProto` that export does not write.
const OTHERS_OF_MODEL: [u64; 5] = [4, 5, 6, 20, 25];

/// Why bytes are not decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WireError {
    /// They are no message, or the beginning of one.
    Malformed(String),
    /// They are a message that export does not write.
    Unexpected(String),
}

/// Checks the bytes of a file. Allocates nothing but a message; reads each byte at most once.
pub(crate) fn check(bytes: &[u8]) -> Result<(), WireError> {
    message(bytes, &MODEL)
}

fn malformed(schema: &Schema) -> WireError {
    WireError::Malformed(format!("a {} is cut off or no protobuf message", schema.name))
}

/// Depth of recursion: that of the schemas, eight.
fn message(mut bytes: &[u8], schema: &'static Schema) -> Result<(), WireError> {
    let mut seen = [0usize; 6];
    while !bytes.is_empty() {
        let tag = varint(&mut bytes).ok_or_else(|| malformed(schema))?;
        let (number, wire) = (tag >> 3, tag & 7);
        let place = schema.fields.iter().position(|field| field.number == number);
        let Some((place, field)) = place.and_then(|place| Some((place, schema.fields.get(place)?))) else {
            // What is no ONNX file at all begins with anything.
            let listed = schema.name != MODEL.name || OTHERS_OF_MODEL.contains(&number);
            let known = listed && number > 0 && matches!(wire, 0 | 1 | 2 | 5);
            let said = format!("a {} has the field {number}, which export does not write", schema.name);
            return Err(if known { WireError::Unexpected(said) } else { malformed(schema) });
        };
        let mut count = 1;
        match (&field.kind, wire) {
            (Kind::Varints, 0) => varint(&mut bytes).map(|_| ()).ok_or_else(|| malformed(schema))?,
            (Kind::Varints, 2) => {
                let mut packed = block(&mut bytes).ok_or_else(|| malformed(schema))?;
                count = 0;
                while !packed.is_empty() && count <= field.most {
                    varint(&mut packed).ok_or_else(|| malformed(schema))?;
                    count += 1;
                }
            }
            (Kind::Fixed32, 5) => {
                bytes = bytes.get(4..).ok_or_else(|| malformed(schema))?;
            }
            (Kind::Bytes(most), 2) => {
                let length = block(&mut bytes).ok_or_else(|| malformed(schema))?.len();
                if length > *most {
                    let said = format!(
                        "the field {number} of a {} has {length} bytes, at most {most} are written",
                        schema.name
                    );
                    return Err(WireError::Unexpected(said));
                }
            }
            (Kind::Message(inner), 2) => message(block(&mut bytes).ok_or_else(|| malformed(schema))?, inner)?,
            _ => return Err(malformed(schema)),
        }
        if let Some(seen) = seen.get_mut(place) {
            *seen += count;
            if *seen > field.most {
                let (most, name) = (field.most, schema.name);
                let said =
                    format!("a {name} has the field {number} more than {most} times, the most that export writes");
                return Err(WireError::Unexpected(said));
            }
        }
    }
    Ok(())
}

/// Takes a number of at most ten bytes off the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a length and so many bytes off the front.
fn block<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (block, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(block)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};

    use super::*;

    fn said(model: &ModelProto) -> String {
        match check(&model.encode_to_vec()) {
            Ok(()) => "accepted".to_string(),
            Err(WireError::Malformed(said) | WireError::Unexpected(said)) => said,
        }
    }

    fn with_graph(graph: GraphProto) -> ModelProto {
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    #[test]
    fn what_is_no_message_is_told_from_one_that_export_does_not_write() {
        for bytes in [&b"PK\x03\x04 a zip file"[..], b"{\"json\": true}", b"\x89PNG\r\n\x1a\n", &[0; 100], &[0x3a, 200]]
        {
            assert!(matches!(check(bytes), Err(WireError::Malformed(_))), "{bytes:?}");
        }
        assert_eq!(check(&[]), Ok(()));
        let documented = ModelProto { doc_string: "words".to_string(), ..ModelProto::default() };
        assert_eq!(said(&documented), "a model has the field 6, which export does not write");
        let node = NodeProto { doc_string: "words".to_string(), ..NodeProto::default() };
        let graph = GraphProto { node: vec![node], ..GraphProto::default() };
        assert_eq!(said(&with_graph(graph)), "a node has the field 6, which export does not write");
    }

    #[test]
    fn more_than_a_model_has_is_refused_before_it_is_decoded() {
        // Two bytes of the file each, some 200 when they are decoded.
        let graph = GraphProto { node: vec![NodeProto::default(); MOST + 1], ..GraphProto::default() };
        assert!(said(&with_graph(graph)).contains("the field 1 more than 65536 times"));
        let sets = ModelProto { opset_import: vec![OperatorSetIdProto::default(); 5], ..ModelProto::default() };
        assert!(said(&sets).contains("the field 8 more than 4 times"), "{}", said(&sets));
        let dims = |count: usize| {
            let tensor = TensorProto { dims: vec![1; count], ..TensorProto::default() };
            said(&with_graph(GraphProto { initializer: vec![tensor], ..GraphProto::default() }))
        };
        assert_eq!(dims(8), "accepted");
        assert!(dims(1000).contains("the field 1 more than 8 times"), "{}", dims(1000));
        let attribute = AttributeProto { name: "n".repeat(NAME + 1), ..AttributeProto::default() };
        let node = NodeProto { attribute: vec![attribute], ..NodeProto::default() };
        let long = said(&with_graph(GraphProto { node: vec![node], ..GraphProto::default() }));
        assert!(long.contains("has 513 bytes, at most 512 are written"), "{long}");
    }

    #[test]
    fn numbers_are_read_one_by_one_or_packed() {
        // A tensor of a graph of a model, whose field 1 is [1, 300].
        let around = |fields: &[u8]| {
            let graph = [&[0x2a, fields.len() as u8], fields].concat();
            [&[0x3a, graph.len() as u8], graph.as_slice()].concat()
        };
        assert_eq!(check(&around(&[0x0a, 3, 1, 0xac, 0x02])), Ok(()));
        assert_eq!(check(&around(&[0x08, 1, 0x08, 0xac, 0x02])), Ok(()));
        assert!(check(&around(&[0x0a, 3, 1, 0xac, 0x82])).is_err());
        // A number of eleven bytes.
        assert!(check(&around(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1])).is_err());
    }
}
