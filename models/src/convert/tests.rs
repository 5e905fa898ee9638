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
    let converted = convert_checkpoint(&sample()).unwrap();
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
    let error = convert_checkpoint(&p.0).unwrap_err();
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
        let error = convert_checkpoint(&p.0).unwrap_err();
        assert_eq!(error, ConvertError::Opcode { offset, opcode });
    }
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample();
    for length in 0..bytes.len() {
        assert!(convert_checkpoint(&bytes[..length]).is_err(), "{length}");
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
        convert_checkpoint(&bytes)
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
        convert_checkpoint(&checkpoint(entries, storages)).unwrap_err()
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
    let error = convert_checkpoint(&bytes).unwrap_err();
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
    let error = convert_checkpoint(&p.0).unwrap_err();
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
    let error = convert_checkpoint(b"PK\x03\x04 no archive").unwrap_err();
    assert!(matches!(error, ConvertError::Archive { .. }), "{error}");
    let mut p = Pickle::default();
    p.op(b"\x80\x02K\x05.");
    assert!(matches!(
        convert_checkpoint(&p.0),
        Err(ConvertError::NotACheckpoint { offset: 0, .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_pickles_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = convert_checkpoint(&body);
        let _ = convert_checkpoint(&[&preamble_bytes()[..], &body].concat());
    }

    #[test]
    fn pickles_of_known_opcodes_never_panic(
        body in proptest::collection::vec(
            proptest::sample::select(&b"(NK\x00\x01)\x85\x86\x87t}]suaeq\x00h\x00RQb.\x88\x89"[..]), 0..80)
    ) {
        prop_assert!(convert_checkpoint(&[&preamble_bytes()[..], &body].concat()).is_err());
    }

    #[test]
    fn one_changed_byte_never_panics(at in 0usize..700, byte in any::<u8>()) {
        let mut bytes = sample();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = convert_checkpoint(&bytes);
    }
}

/// A zip checkpoint that PyTorch wrote, of a nested state dictionary.
const ZIPPED: &[u8] = include_bytes!("../../golden/openphenom-layout.pt");

/// The entries of a zip checkpoint, changed and written again.
fn zipped(compression: zip::CompressionMethod, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> Vec<u8> {
    use std::io::{Cursor, Read, Write};
    let mut archive = zip::ZipArchive::new(Cursor::new(ZIPPED)).unwrap();
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(compression);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let (name, mut data) = (entry.name().to_owned(), Vec::new());
        entry.read_to_end(&mut data).unwrap();
        if let Some(data) = change(&name, data) {
            writer.start_file(name, options).unwrap();
            writer.write_all(&data).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn a_zip_checkpoint_of_a_nested_state_dictionary_leaves_training_out() {
    let converted = convert_checkpoint(ZIPPED).unwrap();
    let file = SafeTensors::deserialize(&converted).unwrap();
    let name = "encoder.vit_backbone.blocks.1.in_proj.weight";
    assert_eq!(file.tensor(name).unwrap().shape(), [40 + 3 * 24, 24]);
    assert!(file.names().iter().all(|name| name.starts_with("encoder.")));
    let again = convert_checkpoint(&zipped(zip::CompressionMethod::Stored, |_, data| Some(data)));
    assert!(again.unwrap() == converted);
}

#[test]
fn a_zip_checkpoint_that_lacks_something_is_refused_by_name() {
    let without = |part: &'static str| {
        let change = |name: &str, data| (!name.ends_with(part)).then_some(data);
        convert_checkpoint(&zipped(zip::CompressionMethod::Stored, change)).unwrap_err()
    };
    assert!(without("data.pkl").to_string().contains("data.pkl"));
    let error = without("data/3");
    let reason = TensorFault::NoStorage { key: "3".into() };
    assert!(
        matches!(&error, ConvertError::Tensor { reason: found, .. } if *found == reason),
        "{error}"
    );
    let short = zipped(zip::CompressionMethod::Stored, |name, mut data| {
        if name.ends_with("data/3") {
            data.pop();
        }
        Some(data)
    });
    let error = convert_checkpoint(&short).unwrap_err();
    assert!(
        matches!(&error, ConvertError::Archive { entry, .. } if entry.ends_with("data/3")),
        "{error}"
    );
    let big = zipped(zip::CompressionMethod::Stored, |name, data| {
        Some(if name.ends_with("byteorder") {
            b"big".to_vec()
        } else {
            data
        })
    });
    assert!(
        convert_checkpoint(&big)
            .unwrap_err()
            .to_string()
            .contains("little-endian")
    );
}

#[test]
fn two_state_dictionaries_keep_their_names_apart() {
    let mut p = Pickle::default();
    p.op(b"\x80\x02}(").text("student").op(b"}").text("w");
    p.tensor("FloatStorage", "0", 1, 0, &[1], &[1]).op(b"s");
    p.text("teacher").op(b"}").text("w");
    p.tensor("FloatStorage", "1", 1, 0, &[1], &[1]).op(b"su.");
    let mut names: Vec<String> = tensors(&mut Reader::new(&p.0, 0))
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.sort();
    assert_eq!(names, ["student.w", "teacher.w"]);
}

#[test]
fn a_dictionary_that_holds_itself_ends() {
    let mut p = Pickle::default();
    p.op(b"\x80\x02}q\x00").text("again").op(b"h\x00s.");
    let mut reader = Reader::new(&p.0, 0);
    assert_eq!(tensors(&mut reader).unwrap(), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_zip_checkpoint_never_panics(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        length in any::<proptest::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = ZIPPED.to_vec();
        // Half the changes hit the pickle and the directory, where they hurt.
        for (n, (at, value)) in changes.iter().enumerate() {
            let at = match n % 3 {
                0 => at.index(6000.min(bytes.len())),
                1 => bytes.len() - 1 - at.index(6000.min(bytes.len())),
                _ => at.index(bytes.len()),
            };
            bytes[at] = *value;
        }
        if cut {
            bytes.truncate(length.index(ZIPPED.len()));
        }
        let _ = convert_checkpoint(&bytes);
    }
}

#[test]
fn what_wrappers_put_before_all_names_is_taken_off() {
    let names = |of: [&str; 2]| {
        let mut p = Pickle::default();
        p.op(b"\x80\x02}(").text("state_dict").op(b"}(");
        for name in of {
            p.text(name).tensor("FloatStorage", "0", 1, 0, &[1], &[1]);
        }
        p.op(b"u").text("epoch").op(b"K\x03u.");
        let described = tensors(&mut Reader::new(&p.0, 0)).unwrap();
        described.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names(["module.a.w", "module.b.w"]), ["a.w", "b.w"]);
    assert_eq!(
        names(["module._orig_mod.a.w", "module._orig_mod.b.w"]),
        ["a.w", "b.w"]
    );
    // A part of a network that is called so is no wrapper.
    assert_eq!(names(["module.a.w", "b.w"]), ["module.a.w", "b.w"]);
}
