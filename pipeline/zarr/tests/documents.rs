//! Documents that are not used, and chunks that would become more than they say: an error each, and nothing is allocated.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::error::Error as _;
use std::io::Write;

use common::Folder;
use proptest::prelude::*;
use wellspring_zarr::{Limits, ZarrArray, ZarrError};

fn v2(change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let mut document = serde_json::json!({
        "zarr_format": 2, "shape": [2, 64, 64], "chunks": [1, 64, 64], "dtype": "<u2", "fill_value": 0,
        "order": "C", "filters": null, "dimension_separator": "/", "compressor": null,
    });
    change(&mut document);
    document.to_string().into_bytes()
}

fn v3(change: impl Fn(&mut serde_json::Value)) -> Vec<u8> {
    let mut document = serde_json::json!({
        "zarr_format": 3, "node_type": "array", "shape": [2, 64, 64], "data_type": "uint16", "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 64, 64]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}], "attributes": {},
    });
    change(&mut document);
    document.to_string().into_bytes()
}

fn shards(chunk: &str, index: &str) -> Vec<u8> {
    v3(|document| {
        let codecs = format!(
            "[{{\"name\":\"sharding_indexed\",\"configuration\":{{\"chunk_shape\":{chunk},\
             \"codecs\":[{{\"name\":\"bytes\",\"configuration\":{{\"endian\":\"little\"}}}}],\"index_codecs\":{index}}}}}]"
        );
        document["codecs"] = serde_json::from_str(&codecs).unwrap();
    })
}

const INDEX: &str = r#"[{"name":"bytes","configuration":{"endian":"little"}},{"name":"crc32c"}]"#;

fn parse(document: &[u8]) -> Result<ZarrArray, ZarrError> {
    ZarrArray::parse(document, Limits::default())
}

#[test]
fn what_is_not_read_says_why() {
    let set = |key: &'static str, value: &'static str| {
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        let of_3 = value.clone();
        (
            v2(move |document| document[key] = value.clone()),
            v3(move |document| document[key] = of_3.clone()),
        )
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"{".to_vec(), "no JSON"),
        (b"[]".to_vec(), "not that of a Zarr array"),
        (b"{\"zarr_format\":2}".to_vec(), "not that of a Zarr array"),
        (
            b"{\"zarr_format\":3,\"node_type\":\"group\"}".to_vec(),
            "node_type \"group\"",
        ),
        (set("zarr_format", "4").0, "zarr_format 4"),
        (set("dtype", "\"<f4\"").0, "pixels are \"<f4\""),
        (set("dtype", "\"<i2\"").0, "pixels are \"<i2\""),
        (set("data_type", "\"uint32\"").1, "pixels are \"uint32\""),
        (set("data_type", "\"nonsense\"").1, "cannot be used"),
        (set("shape", "[64]").0, "1 axes"),
        (set("shape", "[1,1,1,1,1,1,1,64,64]").0, "9 axes"),
        (set("chunks", "[64,64]").0, "its chunks have 2 axes, and it has 3"),
        (set("chunks", "[1,0,64]").0, "cannot be used"),
        (set("shape", "[2,400000000000,64]").0, "64 x 400000000000 pixels"),
        (set("shape", "[2,0,64]").1, "64 x 0 pixels"),
        (set("shape", "[0,64,64]").1, "has no plane"),
        (set("shape", "[99999999999,64,64]").1, "more than can be counted"),
        (set("chunks", "[1,40000000000,40000000000]").0, "larger than the"),
        (
            v3(|document| {
                document["shape"] = serde_json::json!([1, 16384, 16384]);
                document["chunk_grid"]["configuration"]["chunk_shape"] = serde_json::json!([1, 1, 1]);
            }),
            "cut into 268435456 chunks",
        ),
        (
            set("filters", "[{\"id\":\"delta\",\"dtype\":\"<u2\"}]").0,
            "'delta'",
        ),
        (set("compressor", "{\"id\":\"lzma\"}").0, "'lzma'"),
        (set("compressor", "{\"id\":\"crc32c\"}").0, "'crc32c'"),
        (
            set(
                "codecs",
                "[{\"name\":\"bytes\",\"configuration\":{\"endian\":\"little\"}},{\"name\":\"lz4\"}]",
            )
            .1,
            "'lz4'",
        ),
        (set("codecs", "[]").1, "cannot be used"),
        (
            set("codecs", "[{\"name\":\"zstd\"},{\"name\":\"bytes\"}]").1,
            "'bytes'",
        ),
        (set("chunk_grid", "{\"name\":\"rectangular\"}").1, "'rectangular'"),
        (
            set("storage_transformers", "[{\"name\":\"turned\"}]").1,
            "'turned'",
        ),
        (shards("[1,48,64]", INDEX), "whole chunks"),
        (shards("[64,64]", INDEX), "whole chunks"),
        (
            shards(
                "[1,64,64]",
                "[{\"name\":\"gzip\",\"configuration\":{\"level\":1}}]",
            ),
            "'gzip (of the index",
        ),
        (shards("[1,0,64]", INDEX), "sharding_indexed"),
    ];
    for (document, reason) in cases {
        let error = parse(&document).unwrap_err();
        assert!(
            error.to_string().contains(reason),
            "{}: {error}",
            String::from_utf8_lossy(&document)
        );
    }
    parse(&v2(|_| {})).unwrap();
    parse(&v3(|_| {})).unwrap();
    parse(&shards("[1,16,64]", INDEX)).unwrap();
    let many = v3(|document| {
        document["shape"] = serde_json::json!([4096, 4096, 4096]);
        document["chunk_grid"]["configuration"]["chunk_shape"] = serde_json::json!([4096, 4096, 4096]);
        let codecs: serde_json::Value = serde_json::from_slice(&shards("[1,256,256]", INDEX)).unwrap();
        document["codecs"] = codecs["codecs"].clone();
    });
    let error = parse(&many).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(error, Ok(()), "1048576 chunks are the most");
}

/// A store of one array whose chunk of plane 0 is `chunk`.
fn with_chunk(document: Vec<u8>, chunk: Vec<u8>) -> Folder {
    let mut folder = Folder::default();
    let is_v3 = document.windows(9).any(|part| part == b"node_type");
    folder.add(if is_v3 { "a/zarr.json" } else { "a/.zarray" }, document);
    folder.add(if is_v3 { "a/c/0/0/0" } else { "a/0/0/0" }, chunk);
    folder
}

fn reason(folder: &Folder) -> String {
    let array = folder.array("a").unwrap();
    let error = folder.plane(&array, "a", 0).unwrap_err();
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn chunks_that_become_more_than_the_document_says_are_errors() {
    let bomb = vec![0u8; 32 << 20];
    let compressed = |id: &'static str| {
        v2(move |document| document["compressor"] = serde_json::json!({"id": id, "level": 1}))
    };
    for (id, chunk) in [
        ("gzip", gzip(&bomb)),
        ("zlib", zlib(&bomb)),
        ("zstd", zstd::bulk::compress(&bomb, 1).unwrap()),
    ] {
        let text = reason(&with_chunk(compressed(id), chunk));
        assert!(text.contains("more than the 8192 bytes"), "{id}: {text}");
    }
    // A frame of zstd whose header promises 2^62 bytes.
    let mut forged = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
    forged.extend((1u64 << 62).to_le_bytes());
    forged.extend([1, 0, 0]);
    let text = reason(&with_chunk(compressed("zstd"), forged));
    assert!(text.starts_with("zstd "), "{text}");
    // A header of blosc that promises 2 GiB, and one that is longer than the chunk.
    let blosc = |bytes: u32, length: u32| {
        let mut chunk = vec![2, 1, 0x21, 2];
        chunk.extend(bytes.to_le_bytes());
        chunk.extend(4096u32.to_le_bytes());
        chunk.extend(length.to_le_bytes());
        chunk.extend([0; 48]);
        chunk
    };
    let with_blosc = || v2(|document| document["compressor"] = serde_json::json!({"id": "blosc"}));
    let text = reason(&with_chunk(with_blosc(), blosc(0x7fff_0000, 64)));
    assert!(text.starts_with("blosc "), "{text}");
    let text = reason(&with_chunk(with_blosc(), blosc(8192, 1 << 20)));
    assert!(text.contains("does not fit its length"), "{text}");
    // Fewer bytes than the document says, and more without any packing.
    let text = reason(&with_chunk(compressed("gzip"), gzip(&bomb[..100])));
    assert_eq!(text, "it becomes 100 bytes; a chunk of this array has 8192");
    let text = reason(&with_chunk(v2(|_| {}), vec![0; 8193]));
    assert!(
        text.contains("it has 8193 bytes; a chunk of this array has at most 8192"),
        "{text}"
    );
}

#[test]
fn a_document_that_makes_much_of_few_bytes_is_a_bomb() {
    let document = v2(|document| {
        document["shape"] = serde_json::json!([16384, 64, 64]);
        document["chunks"] = serde_json::json!([16384, 64, 64]);
        document["compressor"] = serde_json::json!({"id": "zstd", "level": 1});
    });
    let chunk = zstd::bulk::compress(&vec![0u8; 128 << 20], 1).unwrap();
    let text = reason(&with_chunk(document, chunk));
    assert!(
        text.contains("would become 134217728; at most 67108864"),
        "{text}"
    );
}

#[test]
fn indices_of_shards_cannot_point_anywhere() {
    let document = shards(
        "[1,32,64]",
        r#"[{"name":"bytes","configuration":{"endian":"little"}}]"#,
    );
    let shard = |places: [u64; 4]| {
        let mut bytes = vec![0; 2 * 4096];
        bytes.extend(places.iter().flat_map(|place| place.to_le_bytes()));
        bytes
    };
    for (places, text) in [
        (
            [0, 4096, 1 << 40, 4096],
            "says that chunk 1 has bytes 1099511627776 to 1099511631872",
        ),
        ([0, 4096, u64::MAX, 4096], "says that chunk 1"),
        ([0, 0, 4096, 4096], "says that chunk 0 has bytes 0 to 0"),
        ([0, 8192, 4096, 4096], "a chunk at most 4096"),
    ] {
        let said = reason(&with_chunk(document.clone(), shard(places)));
        assert!(said.contains(text), "{places:?}: {said}");
    }
    let folder = with_chunk(document.clone(), shard([4096, 4096, u64::MAX, u64::MAX]));
    folder.plane(&folder.array("a").unwrap(), "a", 0).unwrap();
    let said = reason(&with_chunk(document, vec![0; 31]));
    assert!(
        said.contains("the shard has 31 bytes, and its index alone must have 32"),
        "{said}"
    );
    // A checksum of the index that does not fit.
    let said = reason(&with_chunk(shards("[1,32,64]", INDEX), vec![0; 9000]));
    assert!(said.contains("the index of the shard cannot be used"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Documents with parts taken out, or other numbers and words in them, never panic; nor do the tiles of what is read.
    #[test]
    fn changed_documents_never_panic(
        which in 0usize..3, at in any::<prop::sample::Index>(), cut in 0usize..12, put in "[0-9\\[\\]{}\",a-z:-]{0,6}",
    ) {
        let document = [v2(|_| {}), v3(|_| {}), shards("[1,16,64]", INDEX)][which].clone();
        let at = at.index(document.len());
        let mut changed = document[..at].to_vec();
        changed.extend(put.as_bytes());
        changed.extend(document.get(at + cut..).unwrap_or_default());
        if let Ok(array) = parse(&changed) {
            for page in [0, 1, u32::MAX] {
                let _whatever = array.tiles(page);
            }
        }
    }
}
