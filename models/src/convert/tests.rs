//! A checkpoint written byte by byte, as the pickle protocol describes it, and everything that may be wrong with one.

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;

/// Writes pickles.
#[derive(Default, Clone)]
struct Pickle(Vec<u8>);

impl Pickle {
    fn op(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.op(b"X")
            .op(&(text.len() as u32).to_le_bytes())
            .op(text.as_bytes())
    }

    fn sizes(&mut self, sizes: &[u8]) -> &mut Self {
        self.op(b"(");
        for &n in sizes {
            self.op(&[b'K', n]);
        }
        self.op(b"t")
    }

    /// A tensor: class and key of its storage, elements, first element, shape, strides.
    fn tensor(
        &mut self,
        class: &str,
        key: &str,
        elements: u8,
        first: u8,
        shape: &[u8],
        strides: &[u8],
    ) -> &mut Self {
        self.op(b"ctorch._utils\n_rebuild_tensor_v2\n((").text("storage");
        self.op(format!("ctorch\n{class}\n").as_bytes())
            .text(key)
            .text("cpu")
            .op(&[b'K', elements, b'N', b't', b'Q']);
        self.op(&[b'K', first]).sizes(shape).sizes(strides);
        self.op(b"\x89ccollections\nOrderedDict\n)RtR")
    }
}

/// Magic number, protocol and machine.
fn preamble_bytes() -> Vec<u8> {
    let mut p = Pickle::default();
    p.op(b"\x80\x02\x8a\x0a")
        .op(&MAGIC)
        .op(b".")
        .op(b"\x80\x02M\xe9\x03.");
    p.op(b"\x80\x02}q\x00(").text("little_endian").op(b"\x88u.");
    p.0
}

/// A checkpoint of these dictionary entries and storages.
fn checkpoint(entries: impl FnOnce(&mut Pickle), storages: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let mut p = Pickle(preamble_bytes());
    p.op(b"\x80\x02ccollections\nOrderedDict\n)Rq\x01(");
    entries(&mut p);
    // The attributes of the dictionary, as PyTorch writes them.
    p.op(b"u}")
        .text("_metadata")
        .op(b"ccollections\nOrderedDict\n)Rsb.");
    p.op(b"\x80\x02](");
    for (key, _, _) in storages {
        p.text(key);
    }
    p.op(b"e.");
    for (_, count, data) in storages {
        p.op(&count.to_le_bytes()).op(data);
    }
    p.0
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Two tensors, one of them transposed, and a training counter.
fn sample() -> Vec<u8> {
    checkpoint(
        |p| {
            p.text("w").tensor("FloatStorage", "7", 6, 0, &[2, 3], &[1, 2]);
            p.text("n.bias").tensor("FloatStorage", "8", 4, 1, &[3], &[1]);
            p.text("n.num_batches_tracked")
                .tensor("LongStorage", "9", 1, 0, &[], &[]);
        },
        &[
            ("9", 1, &5u64.to_le_bytes()),
            ("7", 6, &floats(&[1., 2., 3., 4., 5., 6.])),
            ("8", 4, &floats(&[9., 10., 11., 12.])),
        ],
    )
}

#[test]
fn converts_names_shapes_strides_and_offsets() {
    let converted = convert_legacy_checkpoint(&sample()).unwrap();
    let file = SafeTensors::deserialize(&converted).unwrap();
    assert_eq!(file.len(), 2);
    let w = file.tensor("w").unwrap();
    assert_eq!((w.dtype(), w.shape()), (Dtype::F32, &[2, 3][..]));
    assert_eq!(w.data(), floats(&[1., 3., 5., 2., 4., 6.]));
    assert_eq!(file.tensor("n.bias").unwrap().data(), floats(&[10., 11., 12.]));
}

#[test]
fn a_name_outside_the_list_is_never_loaded() {
    let mut p = Pickle(preamble_bytes());
    let at = p.0.len() + 2;
    p.op(b"\x80\x02cos\nsystem\n(").text("true").op(b"tR.");
    let error = convert_legacy_checkpoint(&p.0).unwrap_err();
    assert_eq!(
        error,
        ConvertError::Global {
            offset: at,
            name: "os.system".into()
        }
    );
}

#[test]
fn other_opcodes_are_refused_at_their_byte() {
    for opcode in [
        b'i', b'o', b'\x81', b'\x93', b'P', b'I', b'U', b'0', b'\x94', b'\x95', 0xff,
    ] {
        let mut p = Pickle(preamble_bytes());
        let offset = p.0.len() + 2;
        p.op(&[0x80, 2, opcode]).op(&[0; 32]);
        let error = convert_legacy_checkpoint(&p.0).unwrap_err();
        assert_eq!(error, ConvertError::Opcode { offset, opcode });
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample();
    for length in 0..bytes.len() {
        assert!(convert_legacy_checkpoint(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn tensors_that_do_not_fit_their_storage_are_refused() {
    let one = |shape: &'static [u8], strides: &'static [u8], first: u8| {
        let bytes = checkpoint(
            |p| {
                p.text("w").tensor("FloatStorage", "1", 4, first, shape, strides);
            },
            &[("1", 4, &floats(&[1., 2., 3., 4.]))],
        );
        convert_legacy_checkpoint(&bytes)
    };
    assert!(one(&[2, 2], &[2, 1], 0).is_ok());
    assert!(
        one(&[1, 2], &[255, 1], 2).is_ok(),
        "the stride of a single row is not used"
    );
    assert!(
        one(&[0, 200], &[1, 1], 0).is_ok(),
        "an empty tensor reads nothing"
    );
    let reason = |result: Result<Vec<u8>, ConvertError>| match result {
        Err(ConvertError::Tensor { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        reason(one(&[2, 2], &[2, 1], 1)),
        TensorFault::OutOfStorage { last: 4, elements: 4 }
    );
    assert!(matches!(
        reason(one(&[100, 100], &[0, 0], 0)),
        TensorFault::OutOfStorage { .. }
    ));
    assert!(matches!(
        reason(one(&[255; 8], &[255; 8], 0)),
        TensorFault::OutOfStorage { .. }
    ));
    assert_eq!(
        reason(one(&[2, 2], &[1], 0)),
        TensorFault::Rank { shape: 2, strides: 1 }
    );
    assert!(matches!(
        one(&[1; 9], &[1; 9], 0),
        Err(ConvertError::Limit { .. })
    ));
}

#[test]
fn storages_must_agree_with_their_tensors() {
    let data = floats(&[1., 2.]);
    let with = |entries: fn(&mut Pickle), storages: &[(&str, u64, &[u8])]| {
        convert_legacy_checkpoint(&checkpoint(entries, storages)).unwrap_err()
    };
    let plain = |p: &mut Pickle| {
        p.text("w").tensor("FloatStorage", "1", 2, 0, &[2], &[1]);
    };
    let error = with(plain, &[("1", 3, &data)]);
    assert!(matches!(error, ConvertError::NotACheckpoint { .. }), "{error}");
    let error = with(plain, &[("1", 2, &data), ("2", 2, &data)]);
    assert!(matches!(error, ConvertError::Unexpected { .. }), "{error}");
    let error = with(plain, &[]);
    assert!(
        matches!(&error, ConvertError::Tensor { reason: TensorFault::NoStorage { key }, .. } if key == "1"),
        "{error}"
    );
    let error = with(
        |p| {
            p.text("w").tensor("FloatStorage", "1", 2, 0, &[2], &[1]);
            p.text("w").tensor("FloatStorage", "1", 2, 0, &[2], &[1]);
        },
        &[("1", 2, &data)],
    );
    assert!(
        matches!(
            error,
            ConvertError::Tensor {
                reason: TensorFault::Duplicate,
                ..
            }
        ),
        "{error}"
    );
    let error = with(
        |p| {
            p.text("w").tensor("FloatStorage", "1", 2, 0, &[2], &[1]);
            p.text("v").tensor("LongStorage", "1", 2, 0, &[2], &[1]);
        },
        &[("1", 2, &data)],
    );
    assert!(
        matches!(
            error,
            ConvertError::Tensor {
                reason: TensorFault::TwoStorages { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn one_storage_named_many_times_does_not_fill_the_memory() {
    let data = vec![0; 4 * 250];
    let bytes = checkpoint(
        |p| {
            for i in 0..200 {
                p.text(&i.to_string())
                    .tensor("FloatStorage", "1", 250, 0, &[250], &[1]);
            }
        },
        &[("1", 250, &data)],
    );
    let error = convert_legacy_checkpoint(&bytes).unwrap_err();
    assert!(
        matches!(
            error,
            ConvertError::Limit {
                what: "the size of all tensors",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn deep_nesting_is_refused() {
    let mut p = Pickle(preamble_bytes());
    p.op(b"\x80\x02)").op(&[0x85; 100_000]).op(b".");
    let error = convert_legacy_checkpoint(&p.0).unwrap_err();
    assert!(
        matches!(
            error,
            ConvertError::Limit {
                what: "the nesting of tuples",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn other_formats_are_named() {
    let error = convert_legacy_checkpoint(b"PK\x03\x04 a zip checkpoint").unwrap_err();
    assert!(error.to_string().contains("zip archive"), "{error}");
    let mut p = Pickle::default();
    p.op(b"\x80\x02K\x05.");
    assert!(matches!(
        convert_legacy_checkpoint(&p.0),
        Err(ConvertError::NotACheckpoint { offset: 0, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_pickles_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = convert_legacy_checkpoint(&body);
        let _ = convert_legacy_checkpoint(&[&preamble_bytes()[..], &body].concat());
    }

    #[test]
    fn pickles_of_known_opcodes_never_panic(
        body in proptest::collection::vec(
            proptest::sample::select(&b"(NK\x00\x01)\x85\x86\x87t}]suaeq\x00h\x00RQb.\x88\x89"[..]), 0..80)
    ) {
        prop_assert!(convert_legacy_checkpoint(&[&preamble_bytes()[..], &body].concat()).is_err());
    }

    #[test]
    fn one_changed_byte_never_panics(at in 0usize..700, byte in any::<u8>()) {
        let mut bytes = sample();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = convert_legacy_checkpoint(&bytes);
    }
}
