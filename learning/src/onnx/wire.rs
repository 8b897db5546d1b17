//! The parts of `onnx.proto` that a model of ours needs, in the wire format of Protocol Buffers: fields by number, integers as
//! varints, everything longer with its length before it (<https://protobuf.dev/programming-guides/encoding>).

/// The type of a tensor's elements, `TensorProto.DataType`.
pub(super) const FLOAT: i64 = 1;
pub(super) const INT64: i64 = 7;

/// A message as its bytes.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Field number and wire type: 0 is a varint, 2 has a length, 5 is four bytes.
    fn key(&mut self, field: u32, kind: u32) {
        self.varint(u64::from(field << 3 | kind));
    }

    pub(super) fn int(&mut self, field: u32, value: i64) -> &mut Self {
        self.key(field, 0);
        // A negative one is ten bytes long.
        self.varint(value as u64);
        self
    }

    fn float(&mut self, field: u32, value: f32) {
        self.key(field, 5);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, field: u32, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes());
        self
    }

    pub(super) fn message(&mut self, field: u32, message: Message) -> &mut Self {
        self.bytes(field, &message.0);
        self
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A `NodeProto` of which the attributes are known.
#[derive(Debug, Default)]
pub(super) struct Node(Vec<Message>);

/// `AttributeProto.AttributeType`.
enum Kind {
    Float = 1,
    Int = 2,
    Ints = 7,
}

impl Node {
    fn attribute(mut self, name: &str, kind: Kind, value: impl FnOnce(&mut Message)) -> Self {
        let mut attribute = Message::default();
        attribute.text(1, name);
        value(&mut attribute);
        attribute.int(20, kind as i64);
        self.0.push(attribute);
        self
    }

    pub(super) fn float(self, name: &str, value: f32) -> Self {
        self.attribute(name, Kind::Float, |attribute| attribute.float(2, value))
    }

    pub(super) fn int(self, name: &str, value: i64) -> Self {
        self.attribute(name, Kind::Int, |attribute| {
            attribute.int(3, value);
        })
    }

    pub(super) fn ints(self, name: &str, values: &[i64]) -> Self {
        self.attribute(name, Kind::Ints, |attribute| {
            for &value in values {
                attribute.int(8, value);
            }
        })
    }

    /// The node that computes `output`, and is named after it.
    pub(super) fn finish(self, kind: &str, output: &str, inputs: &[String]) -> Message {
        let mut node = Message::default();
        for input in inputs {
            node.text(1, input);
        }
        node.text(2, output).text(3, output).text(4, kind);
        for attribute in self.0 {
            node.message(5, attribute);
        }
        node
    }
}

fn tensor(name: &str, shape: &[usize], kind: i64, data: &[u8]) -> Message {
    let mut tensor = Message::default();
    for &size in shape {
        tensor.int(1, size as i64);
    }
    tensor.int(2, kind).text(8, name);
    tensor.bytes(9, data);
    tensor
}

/// A `TensorProto` of `f32`.
pub(super) fn float_tensor(name: &str, shape: &[usize], values: &[f32]) -> Message {
    tensor(name, shape, FLOAT, &crate::canonical_bytes(values))
}

/// A `TensorProto` of one dimension of `i64`.
pub(super) fn int_tensor(name: &str, values: &[i64]) -> Message {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, &[values.len()], INT64, &data)
}

/// A `ValueInfoProto` of `f32` with these dimensions for each example of a batch.
pub(super) fn value_info(name: &str, sizes: &[usize]) -> Message {
    let [mut batch, mut shape, mut tensor, mut kind, mut info] = std::array::from_fn(|_| Message::default());
    batch.text(2, "batch");
    shape.message(1, batch);
    for &size in sizes {
        let mut numbers = Message::default();
        numbers.int(1, size as i64);
        shape.message(1, numbers);
    }
    tensor.int(1, FLOAT).message(2, shape);
    kind.message(1, tensor);
    info.text(1, name).message(2, kind);
    info
}

/// A `StringStringEntryProto`.
pub(super) fn metadata(key: &str, value: &str) -> Message {
    let mut entry = Message::default();
    entry.text(1, key).text(2, value);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_bytes_that_the_specification_gives_them() {
        let mut message = Message::default();
        message.int(1, 150);
        assert_eq!(message.0, [0x08, 0x96, 0x01]);
        let mut message = Message::default();
        message.text(2, "testing");
        assert_eq!(message.0, [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
        let mut message = Message::default();
        message.int(20, -1);
        assert_eq!(message.0, [0xa0, 0x01, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
    }
}
