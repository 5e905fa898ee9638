//! Servers of object storage that the tests ask: S3, Azure Blob Storage and Google Cloud Storage, as `scripts/test` starts them.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use object_store::aws::AmazonS3Builder;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzureBuilder};
use object_store::client::HttpRequestBody;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::web;

/// Account and key that Azurite has built in; not a secret.
const AZURITE: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

/// A server that runs.
#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    kind: Kind,
    /// `http://host:port`.
    pub(crate) address: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    S3,
    Azure,
    Google,
}

/// Each kind, the variable that has its address, and the script that starts it.
const KINDS: [(Kind, &str, &str); 3] = [
    (Kind::S3, "WELLSPRING_TEST_S3", "scripts/s3"),
    (Kind::Azure, "WELLSPRING_TEST_AZURE", "scripts/azure"),
    (Kind::Google, "WELLSPRING_TEST_GCS", "scripts/gcs"),
];

/// Those servers that there are; a plain word for each that there is not.
pub(crate) fn all() -> Vec<Cloud> {
    let cloud = |(kind, variable, script): &(Kind, &str, &str)| {
        let address = std::env::var(variable).ok().filter(|address| !address.is_empty());
        if address.is_none() {
            println!("skipped: no server for {kind:?}; set {variable} to what `{script} start` prints");
        }
        Some(Cloud {
            kind: *kind,
            address: address?,
        })
    };
    KINDS.iter().filter_map(cloud).collect()
}

/// The S3 server.
pub(crate) fn s3() -> Option<Cloud> {
    all().into_iter().find(|cloud| cloud.kind == Kind::S3)
}

impl Cloud {
    pub(crate) fn is_azure(&self) -> bool {
        self.kind == Kind::Azure
    }

    /// Whether it says that a bucket is absent when it is listed: fake-gcs-server calls it an error of its own.
    pub(crate) fn tells_absent_buckets(&self) -> bool {
        self.kind != Kind::Google
    }

    /// The same server at another address.
    pub(crate) fn at(&self, address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ..self.clone()
        }
    }

    /// A bucket as a screen names it.
    pub(crate) fn uri(&self, bucket: &str) -> String {
        let scheme = match self.kind {
            Kind::S3 => "s3",
            Kind::Azure => "az",
            Kind::Google => "gs",
        };
        format!("{scheme}://{bucket}")
    }

    /// The command with the environment of somebody who uses the server.
    pub(crate) fn with<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        match self.kind {
            Kind::S3 => command
                .env("AWS_ENDPOINT", &self.address)
                .env("AWS_ALLOW_HTTP", "true")
                .env("AWS_ACCESS_KEY_ID", "x")
                .env("AWS_SECRET_ACCESS_KEY", "x")
                .env("AWS_REGION", "us-east-1"),
            Kind::Azure => command
                .env("AZURITE_BLOB_STORAGE_URL", &self.address)
                .env("AZURE_STORAGE_USE_EMULATOR", "true"),
            Kind::Google => command
                .env("GOOGLE_BASE_URL", &self.address)
                .env("GOOGLE_ALLOW_HTTP", "true")
                .env("GOOGLE_SKIP_SIGNATURE", "true"),
        }
    }

    /// Makes a bucket of the files below a folder.
    pub(crate) fn upload(&self, bucket: &str, folder: &Path) {
        self.make(bucket);
        let store = self.store(bucket);
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
                match &store {
                    Some(store) => _ = runtime.block_on(store.put(&name.into(), bytes.into())).unwrap(),
                    None => {
                        let path = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}");
                        web::request(&self.address, "POST", &path, &[], &bytes);
                    }
                }
            }
        }
    }

    fn make(&self, bucket: &str) {
        match self.kind {
            // Whose bucket it is stands in the signature, of which the server reads only the head.
            Kind::S3 => {
                let signed =
                    "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request";
                web::request(
                    &self.address,
                    "PUT",
                    &format!("/{bucket}"),
                    &[signed.to_owned()],
                    b"",
                );
            }
            Kind::Azure => {
                let (account, key) = AZURITE;
                let path = format!("/{account}/{bucket}?restype=container");
                let mut request = axum::http::Request::put(format!("{}{path}", self.address))
                    .body(HttpRequestBody::empty())
                    .unwrap();
                let key = AzureCredential::AccessKey(AzureAccessKey::try_new(key).unwrap());
                AzureAuthorizer::new(&key, account)
                    .try_authorize(&mut request)
                    .unwrap();
                let headers = request.headers().iter();
                let headers: Vec<String> = headers
                    .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                    .collect();
                web::request(&self.address, "PUT", &path, &headers, b"");
            }
            Kind::Google => {
                let body = format!("{{\"name\":\"{bucket}\"}}");
                let json = ["Content-Type: application/json".to_owned()];
                web::request(
                    &self.address,
                    "POST",
                    "/storage/v1/b?project=test",
                    &json,
                    body.as_bytes(),
                );
            }
        }
    }

    /// A client that writes; none of fake-gcs-server, which is written to by the other of Google's protocols only.
    fn store(&self, bucket: &str) -> Option<Arc<dyn ObjectStore>> {
        match self.kind {
            Kind::S3 => {
                let builder = AmazonS3Builder::new()
                    .with_endpoint(&self.address)
                    .with_allow_http(true)
                    .with_bucket_name(bucket)
                    .with_region("us-east-1")
                    .with_access_key_id("x")
                    .with_secret_access_key("x");
                Some(Arc::new(builder.build().unwrap()))
            }
            Kind::Azure => {
                let (account, key) = AZURITE;
                let builder = MicrosoftAzureBuilder::new()
                    .with_endpoint(format!("{}/{account}", self.address))
                    .with_allow_http(true)
                    .with_container_name(bucket)
                    .with_account(account)
                    .with_access_key(key);
                Some(Arc::new(builder.build().unwrap()))
            }
            Kind::Google => None,
        }
    }
}
