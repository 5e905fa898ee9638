//! Stores over the network: plates on a web server and on a real S3 server, with faults between us and them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

#[path = "../common/mod.rs"]
mod common;
mod proxy;
mod web;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use common::{dead_letters, few_wells, models, run_json, wellspring};
use object_store::aws::AmazonS3Builder;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

/// Fields of [`few_wells`].
const FIELDS: u64 = 24;

/// The screen of the plate with its images in another store.
fn screen(plates: &Path, store: &str) -> PathBuf {
    let text = std::fs::read_to_string(plates.join("screen.toml")).unwrap();
    let changed = text.replace("store = \"images\"", &format!("store = \"{store}\""));
    assert_ne!(text, changed);
    let path = plates.join("elsewhere.toml");
    std::fs::write(&path, changed).unwrap();
    path
}

fn run(models: &Path, screen: &Path, out: &Path) -> Command {
    let mut command = wellspring(models);
    command.arg("run").arg(screen).arg("--json").arg("--out").arg(out);
    command.args(["--retry-delays", "0,0,0,0,0,0,0"]);
    command
}

#[test]
fn a_plate_on_a_web_server_is_read_and_what_is_refused_costs_its_field() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    let server = web::serve(
        plates.join("images"),
        &[
            ("_A01_", web::Answer::Forbidden),
            ("_B01_", web::Answer::Gone),
            ("_C01_", web::Answer::Loop),
            ("_D01_", web::Answer::CutOnce),
            ("_E01_", web::Answer::ResetOnce),
            ("_F01_", web::Answer::BusyOnce),
        ],
    );
    let screen = screen(&plates, &server);
    let out = folder.path().join("out");
    let (code, summary) = run_json(&mut run(&models, &screen, &out));
    assert_eq!(
        (code, &summary["fields_done"]),
        (1, &Value::from(FIELDS - 3)),
        "{summary}"
    );
    let letters = dead_letters(&out);
    assert_eq!(letters.len(), 3, "{letters:#?}");
    for (well, class, part) in [
        ("A01", "access", "(403): check what they may read"),
        ("B01", "missing_image", "could not be read after 1 tries"),
        ("C01", "access", "redirects without end"),
    ] {
        let letter = letters.iter().find(|letter| letter["well"] == well).unwrap();
        let message = letter["message"].as_str().unwrap();
        assert_eq!(letter["class"], class, "{letter}");
        assert!(
            message.contains(part) && message.contains(&server),
            "{well}: {message}"
        );
    }
}

#[test]
fn stores_that_cannot_be_read_say_what_to_do() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    let check = |store: &str, environment: &[(&str, &str)]| {
        let mut command = wellspring(&models);
        command.arg("check").arg(screen(&plates, store)).arg("--images");
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AZURE_STORAGE_ACCOUNT_NAME",
        ] {
            command.env_remove(name);
        }
        let output = command.envs(environment.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{store}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = check("s3://lab", &[("AWS_CA_BUNDLE", "/nowhere/ca.pem")]);
    assert!(
        said.contains("AWS_CA_BUNDLE names '/nowhere/ca.pem', which cannot be read"),
        "{said}"
    );
    let no_certificate = plates.join("platemap.csv");
    let said = check("s3://lab", &[("AWS_CA_BUNDLE", no_certificate.to_str().unwrap())]);
    assert!(said.contains("which has no certificates as PEM"), "{said}");
    let said = check("az://plates", &[]);
    assert!(said.contains("AZURE_STORAGE_ACCOUNT_NAME"), "{said}");
    let said = check("https://me:secret@example.org/x", &[]);
    assert!(
        said.contains("has credentials or a query in its address"),
        "{said}"
    );
    let plain = web::serve_without_listing();
    let said = check(&plain, &[]);
    assert!(said.contains("must answer PROPFIND (WebDAV)"), "{said}");
    let said = check("ftp://example.org", &[]);
    assert!(said.contains("scheme 'ftp'; use a folder"), "{said}");
}

/// The address of an S3 server, as `scripts/test` starts it; `None`, with a plain word, where there is none.
fn s3_server() -> Option<String> {
    let address = std::env::var("WELLSPRING_TEST_S3")
        .ok()
        .filter(|address| !address.is_empty());
    if address.is_none() {
        println!("skipped: no S3 server; set WELLSPRING_TEST_S3 to what `scripts/s3 start` prints");
    }
    address
}

#[test]
fn a_plate_on_s3_loses_nothing_to_a_bad_network() {
    let (Some(models), Some(server)) = (models(), s3_server()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    // A bucket of its own for every run of the test.
    let bucket = format!("wellspring-{}", std::process::id());
    let files = plates.join("images");
    upload(&server, &bucket, &files);
    let proxy = proxy::start(&server);
    let out = folder.path().join("out");
    let mut command = run(&models, &screen(&plates, &format!("s3://{bucket}")), &out);
    let (code, summary) = run_json(with_s3(&proxy.address, &mut command));
    assert_eq!(
        (code, &summary["fields_done"]),
        (0, &Value::from(FIELDS)),
        "{summary}"
    );
    for (fault, times) in proxy.faults() {
        assert!(times.load(Ordering::Relaxed) > 0, "the network was never {fault}");
    }
    let mut command = wellspring(&models);
    command
        .arg("check")
        .arg(screen(&plates, "s3://wellspring-absent"))
        .arg("--images");
    let said = with_s3(&server, &mut command).output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("there is no such bucket"), "{said}");
}

/// Shards on S3: their indices are the ends of objects, and their chunks are read on condition that nothing has changed.
#[test]
fn an_ome_zarr_plate_in_shards_is_read_from_s3_as_from_a_folder() {
    let (Some(models), Some(server)) = (models(), s3_server()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("local");
    unpack(include_bytes!("../../zarr/tests/made/plate-0.5.zip"), &local);
    std::fs::write(
        folder.path().join("map.csv"),
        "plate,well,line,compound\nBR05,B3,WT,DMSO\nBR05,C11,NF1,DMSO\n",
    )
    .unwrap();
    let bucket = format!("wellspring-zarr-{}", std::process::id());
    upload(&server, &bucket, &local);
    // The mean of every plane of the plate.
    let mean = |store: &str, to: &str| {
        let text = format!(
            "[screen]\nname = \"shards\"\n[images]\nstore = \"{store}\"\n\
             channels = [{{ name = \"DNA\", match = \"DAPI\" }}, \"GFP\"]\n[plate_map]\nfile = \"map.csv\"\n\
             columns = {{ disease = \"line\" }}\n[controls]\nreference = {{ line = \"WT\" }}\n\
             phenotype = {{ line = \"NF1\" }}\n"
        );
        let screen = folder.path().join(format!("{to}.toml"));
        std::fs::write(&screen, text).unwrap();
        let out = folder.path().join(to);
        let mut command = wellspring(&models);
        command
            .arg("illumination")
            .arg(screen)
            .args(["--method", "none", "--out"])
            .arg(&out);
        let output = with_s3(&server, &mut command).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        ["DNA", "GFP"].map(|channel| std::fs::read(out.join(format!("BR05_{channel}.npy"))).unwrap())
    };
    assert!(mean("local", "of_folder") == mean(&format!("s3://{bucket}"), "of_s3"));
}

fn unpack(archive: &[u8], folder: &Path) {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(archive)).unwrap();
    archive.extract(folder).unwrap();
}

/// A command whose S3 lies at an address.
fn with_s3<'a>(address: &str, command: &'a mut Command) -> &'a mut Command {
    command
        .env("AWS_ENDPOINT", address)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "x")
        .env("AWS_SECRET_ACCESS_KEY", "x")
        .env("AWS_REGION", "us-east-1")
}

/// Makes a bucket of the files below a folder.
fn upload(server: &str, bucket: &str, folder: &Path) {
    web::put(server, &format!("/{bucket}"));
    let store = AmazonS3Builder::new()
        .with_endpoint(server)
        .with_allow_http(true)
        .with_bucket_name(bucket)
        .with_region("us-east-1")
        .with_access_key_id("x")
        .with_secret_access_key("x")
        .build()
        .unwrap();
    let store: &dyn ObjectStore = &store;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in std::fs::read_dir(inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let bytes = std::fs::read(&path).unwrap();
            runtime.block_on(store.put(&name.into(), bytes.into())).unwrap();
        }
    }
}
