//! Opening a store: a URI becomes a client of a folder, S3, Google Cloud Storage, Azure or a web server.
//!
//! What a client needs besides comes from the environment: the variables that each vendor's own tools read, roles of the
//! machine, and `AWS_CA_BUNDLE` or `SSL_CERT_FILE` for certificates. What fails: a folder that is not there, settings that do
//! not fit together, credentials in the URI.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::list::PaginatedListStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{Certificate, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use super::listing::Pages;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The local folder does not exist or cannot be read.
    #[error("image store '{uri}' cannot be opened; check that the folder exists and can be read")]
    Local {
        /// The URI as given.
        uri: String,
        /// The system's reason.
        source: object_store::Error,
    },
    /// The settings of a remote store do not fit together.
    #[error("image store '{uri}' cannot be opened; check {check}")]
    Remote {
        /// The URI as given.
        uri: String,
        /// What a person should look at.
        check: &'static str,
        /// The client's reason.
        source: object_store::Error,
    },
    /// A web address with a user, a password or a signature in it.
    #[error(
        "image store '{shown}...' has credentials or a query in its address, which would be kept with every run; \
         use one without"
    )]
    Secrets {
        /// The address up to what must not be shown.
        shown: String,
    },
    /// The file with certificates cannot be read.
    #[error("AWS_CA_BUNDLE names '{path}', which cannot be read")]
    Bundle {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file with certificates has none.
    #[error("AWS_CA_BUNDLE names '{path}', which has no certificates as PEM")]
    Certificates {
        /// The file.
        path: String,
        /// The parser's reason, where it found something that it could not read.
        source: Option<object_store::Error>,
    },
    /// The scheme is not one that is read.
    #[error(
        "image store '{uri}' has the scheme '{scheme}'; use a folder, file://, s3://bucket/prefix, gs://bucket/prefix, \
         az://container/prefix, abfss://container@account.dfs.core.windows.net/prefix, http:// or https://"
    )]
    Scheme {
        /// The URI as given.
        uri: String,
        /// Its scheme.
        scheme: String,
    },
}

/// A client of a store.
#[derive(Debug)]
pub(super) struct Opened {
    /// Reads and lists it.
    pub(super) store: Arc<dyn ObjectStore>,
    /// Lists it page by page, where it has pages.
    pub(super) pages: Option<Pages>,
    /// Whether its objects are told apart by the time of their last change alone.
    pub(super) by_time: bool,
}

/// The store of a URI.
pub(super) fn open(uri: &str) -> Result<Opened, StoreError> {
    match uri.split_once("://") {
        None => local(uri, uri),
        Some(("file", folder)) => local(uri, folder),
        Some(("s3", rest)) => s3(uri, rest),
        Some(("gs", rest)) => gcs(uri, rest),
        Some(("az" | "abfs" | "abfss", rest)) => azure(uri, rest),
        Some(("http" | "https", rest)) => http(uri, rest),
        Some((scheme, _)) => Err(StoreError::Scheme {
            uri: uri.to_owned(),
            scheme: scheme.to_owned(),
        }),
    }
}

fn local(uri: &str, folder: &str) -> Result<Opened, StoreError> {
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|source| StoreError::Local {
        uri: uri.to_owned(),
        source,
    })?;
    Ok(Opened {
        store: Arc::new(store),
        pages: None,
        by_time: true,
    })
}

/// Repeating is done in this crate, where it is logged and bounded.
fn once() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        retry_timeout: Duration::from_secs(20),
        ..RetryConfig::default()
    }
}

fn remote(uri: &str, check: &'static str) -> impl FnOnce(object_store::Error) -> StoreError {
    let uri = uri.to_owned();
    move |source| StoreError::Remote { uri, check, source }
}

fn below(store: impl ObjectStore + PaginatedListStore + Clone, prefix: &str, ordered: bool) -> Opened {
    let prefix = Path::from(prefix);
    let empty = prefix.as_ref().is_empty();
    Opened {
        by_time: false,
        pages: Some(Pages {
            store: Arc::new(store.clone()),
            root: if empty {
                String::new()
            } else {
                format!("{prefix}/")
            },
            ordered,
        }),
        store: match empty {
            true => Arc::new(store),
            false => Arc::new(PrefixStore::new(store, prefix)),
        },
    }
}

fn s3(uri: &str, rest: &str) -> Result<Opened, StoreError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(once());
    // S3's own tools read certificates from here.
    if let Some(path) = std::env::var("AWS_CA_BUNDLE")
        .ok()
        .filter(|path| !path.is_empty())
    {
        let pem = std::fs::read(&path).map_err(|source| StoreError::Bundle {
            path: path.clone(),
            source,
        })?;
        let no_certificates = |source| StoreError::Certificates {
            path: path.clone(),
            source,
        };
        let certificates =
            Certificate::from_pem_bundle(&pem).map_err(|error| no_certificates(Some(error)))?;
        if certificates.is_empty() {
            return Err(no_certificates(None));
        }
        // Options given at once replace those that the builder took from the environment.
        let mut options = ClientOptions::new();
        for (name, value) in std::env::vars() {
            let key = name.strip_prefix("AWS_").map(str::to_ascii_lowercase);
            if let Some(Ok(key)) = key.map(|key| key.parse::<ClientConfigKey>()) {
                options = options.with_config(key, value);
            }
        }
        let options = certificates
            .into_iter()
            .fold(options, ClientOptions::with_root_certificate);
        builder = builder.with_client_options(options);
    }
    let store = builder.build().map_err(remote(
        uri,
        "the bucket's name and AWS_REGION, AWS_ENDPOINT and credentials",
    ))?;
    // Directory buckets, whose names end so, list in no order.
    Ok(below(store, prefix, !bucket.ends_with("--x-s3")))
}

fn gcs(uri: &str, rest: &str) -> Result<Opened, StoreError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let store = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_retry(once())
        .build()
        .map_err(remote(
            uri,
            "the bucket's name and GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT",
        ))?;
    Ok(below(store, prefix, true))
}

fn azure(uri: &str, rest: &str) -> Result<Opened, StoreError> {
    let (place, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let builder = MicrosoftAzureBuilder::from_env().with_retry(once());
    // The address names the account, or the environment does.
    let builder = match place.contains('@') {
        true => builder.with_url(format!("abfss://{place}/")),
        false => builder.with_container_name(place),
    };
    let store = builder.build().map_err(remote(
        uri,
        "the container's name and AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    ))?;
    Ok(below(store, prefix, true))
}

fn http(uri: &str, rest: &str) -> Result<Opened, StoreError> {
    let host = rest.split('/').next().unwrap_or(rest);
    if host.contains('@') || rest.contains(['?', '#']) {
        let shown = if host.contains('@') { "" } else { host };
        let shown = format!("{}://{shown}", uri.split("://").next().unwrap_or_default());
        return Err(StoreError::Secrets { shown });
    }
    let store = HttpBuilder::new()
        .with_url(uri.trim_end_matches('/'))
        .with_client_options(ClientOptions::new().with_allow_http(uri.starts_with("http://")))
        .with_retry(once())
        .build()
        .map_err(remote(uri, "the address"))?;
    Ok(Opened {
        store: Arc::new(store),
        pages: None,
        by_time: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_store_opens_by_its_uri() {
        for uri in [
            "gs://lab-plates/2026-11/",
            "abfss://plates@lab.dfs.core.windows.net/2026-11",
            "https://example.org/plates/",
            "http://127.0.0.1:1/plates",
            "s3://lab-plates",
        ] {
            assert!(open(uri).is_ok(), "{uri}: {:?}", open(uri).err());
        }
        let error = open("az://plates/x").unwrap_err().to_string();
        assert!(error.contains("AZURE_STORAGE_ACCOUNT_NAME"), "{error}");
        let error = open("ftp://x/y").unwrap_err().to_string();
        assert!(
            error.contains("scheme 'ftp'") && error.contains("gs://"),
            "{error}"
        );
        for uri in [
            "https://me:secret@example.org/x",
            "https://example.org/x?sig=secret",
        ] {
            let error = open(uri).unwrap_err().to_string();
            assert!(
                error.contains("credentials or a query") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
