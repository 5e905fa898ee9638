//! Stores over the network: plates on a web server and on real servers of S3, Azure Blob Storage and Google Cloud Storage, with
//! faults between us and them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test says what it skips")]

mod bad_input;
mod clouds;
#[path = "../common/mod.rs"]
mod common;
mod proxy;
mod web;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use clouds::Cloud;
use common::{dead_letters, few_wells, models, rows_of, run_json, wellspring};
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
        ("B01", "missing_image", "could not be read in one try"),
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

#[test]
fn a_plate_on_s3_loses_nothing_to_a_bad_network() {
    let (Some(models), Some(server)) = (models(), clouds::s3()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    // A bucket of its own for every run of the test.
    let bucket = format!("wellspring-{}", std::process::id());
    server.upload(&bucket, &plates.join("images"));
    let proxy = proxy::start(&server.address);
    let out = folder.path().join("out");
    let mut command = run(&models, &screen(&plates, &server.uri(&bucket)), &out);
    let (code, summary) = run_json(server.at(&proxy.address).with(&mut command));
    assert_eq!(
        (code, &summary["fields_done"]),
        (0, &Value::from(FIELDS)),
        "{summary}"
    );
    for (fault, times) in proxy.faults() {
        assert!(times.load(Ordering::Relaxed) > 0, "the network was never {fault}");
    }
}

#[test]
fn a_plate_is_read_from_every_kind_of_bucket_and_what_is_wrong_with_one_is_said() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plates = few_wells(folder.path(), "\"DNA\"");
    let said_by = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let check = |store: &str| {
        let mut command = wellspring(&models);
        command.arg("check").arg(screen(&plates, store)).arg("--images");
        command
    };
    for server in clouds::all() {
        let bucket = format!("wellspring-plate-{}", std::process::id());
        server.upload(&bucket, &plates.join("images"));
        let store = server.uri(&bucket);
        let out = folder.path().join(&store[..2]);
        // The plates are found by their names.
        let screen = screen(&plates, &store);
        let text = std::fs::read_to_string(&screen).unwrap();
        let text = text.replace(
            "layout = \"imagexpress\"",
            "pattern = '^(?<plate>[^/]+)/.*_(?<well>[A-P][0-9]+)_s(?<field>[0-9]+)_(?<channel>w[0-9])'",
        );
        std::fs::write(
            &screen,
            text.replace("plates = [\"SMALL0001\"]\n", "layout = \"pattern\"\n"),
        )
        .unwrap();
        let mut command = run(&models, &screen, &out);
        let (code, summary) = run_json(server.with(&mut command));
        assert_eq!(
            (code, &summary["fields_done"]),
            (0, &Value::from(FIELDS)),
            "{store}: {summary}"
        );
        // Images have the versions that they were listed with.
        for row in rows_of(&out.join("features.parquet")) {
            assert_eq!(row["Metadata_quality_flags"], "", "{store}: {row}");
        }
        if server.tells_absent_buckets() {
            let said = said_by(server.with(&mut check(&server.uri("wellspring-absent"))));
            assert!(said.contains("there is no such bucket"), "{said}");
        }
        // The other servers accept every key.
        if server.is_azure() {
            let mut command = check(&store);
            server
                .with(&mut command)
                .env("AZURE_STORAGE_ACCOUNT_KEY", "bm90IHRoZSBrZXk=");
            let said = said_by(&mut command);
            assert!(said.contains("(403): check what they may read"), "{said}");
        }
    }
}

/// Shards in buckets: their indices are the ends of objects, and their chunks are read on condition that nothing has changed.
#[test]
fn an_ome_zarr_plate_in_shards_is_read_from_every_kind_of_bucket_as_from_a_folder() {
    let Some(models) = models() else { return };
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("local");
    unpack(include_bytes!("../../zarr/tests/made/plate-0.5.zip"), &local);
    std::fs::write(
        folder.path().join("map.csv"),
        "plate,well,line,compound\nBR05,B3,WT,DMSO\nBR05,C11,NF1,DMSO\n",
    )
    .unwrap();
    // The mean of every plane of the plate.
    let mean = |store: &str, to: &str, server: Option<&Cloud>| {
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
        if let Some(server) = server {
            server.with(&mut command);
        }
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        ["DNA", "GFP"].map(|channel| std::fs::read(out.join(format!("BR05_{channel}.npy"))).unwrap())
    };
    let of_folder = mean("local", "of_folder", None);
    for server in clouds::all() {
        let bucket = format!("wellspring-zarr-{}", std::process::id());
        server.upload(&bucket, &local);
        let store = server.uri(&bucket);
        assert!(mean(&store, &store[..2], Some(&server)) == of_folder, "{store}");
    }
}

fn unpack(archive: &[u8], folder: &Path) {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(archive)).unwrap();
    archive.extract(folder).unwrap();
}
