//! The HTTP door of `wellspring serve`: its arguments, and opening it.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use wellspring::http::{Door, DoorSettings, TlsFiles};
use wellspring::kafka::KafkaSettings;
use wellspring::plates::Followed;
use wellspring::submit::Announcer;

/// Letters of a token at least: shorter ones can be tried out.
const SHORTEST_TOKEN: usize = 16;

/// Whether plates can be announced by HTTP, and by whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DoorArgs {
    /// Take plate events by HTTP at this address: POST /v1/plates; /v1/openapi.json describes it. Beyond this machine it
    /// needs TLS, and a token or client certificates.
    #[arg(long, value_name = "ADDRESS:PORT", env = "WELLSPRING_HTTP")]
    http: Option<SocketAddr>,
    /// File with the bearer token that callers must show.
    #[arg(
        long,
        value_name = "FILE",
        env = "WELLSPRING_HTTP_TOKEN_FILE",
        requires = "http"
    )]
    http_token_file: Option<PathBuf>,
    /// PEM file with the certificate of the door.
    #[arg(
        long,
        value_name = "FILE",
        env = "WELLSPRING_HTTP_CERTIFICATE",
        requires_all = ["http", "http_key"]
    )]
    http_certificate: Option<PathBuf>,
    /// PEM file with its private key.
    #[arg(
        long,
        value_name = "FILE",
        env = "WELLSPRING_HTTP_KEY",
        requires = "http_certificate"
    )]
    http_key: Option<PathBuf>,
    /// PEM file with who signs the certificates of callers; with it every caller must have one.
    #[arg(
        long,
        value_name = "FILE",
        env = "WELLSPRING_HTTP_CLIENT_CA",
        requires = "http_certificate"
    )]
    http_client_ca: Option<PathBuf>,
}

impl DoorArgs {
    /// Opens the door, where there is to be one.
    pub(crate) fn open(&self, kafka: &KafkaSettings, runtime: &Runtime) -> anyhow::Result<Option<Door>> {
        let Some(address) = self.http else { return Ok(None) };
        let token = self.http_token_file.as_deref().map(|file| {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("the token file '{}' cannot be read", file.display()))?;
            let token = text.trim().to_owned();
            ensure!(
                token.len() >= SHORTEST_TOKEN,
                "the token in '{}' has {} letters; use at least {SHORTEST_TOKEN}, drawn at random",
                file.display(),
                token.len()
            );
            Ok(token)
        });
        let files = self.http_certificate.clone().zip(self.http_key.clone());
        let settings = DoorSettings {
            address,
            token: token.transpose()?,
            tls: files.map(|(certificate, key)| TlsFiles {
                certificate,
                key,
                client_ca: self.http_client_ca.clone(),
            }),
        };
        let (plates, announcer) = (Followed::follow(kafka)?, Announcer::start(kafka)?);
        Ok(Some(runtime.block_on(Door::open(settings, plates, announcer))?))
    }
}
