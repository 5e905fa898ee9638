//! What listens for HTTP: the door of `wellspring serve`, and callbacks of external steps. Arguments, and opening them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, ensure};
use tokio::runtime::Runtime;
use wellspring::external::callbacks::Callbacks;
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

/// Whether web services of external steps may call back, and where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CallbackArgs {
    /// Take answers of external steps that say reply = "callback" at this address; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS:PORT", env = "WELLSPRING_CALLBACK_LISTEN")]
    callback_listen: Option<SocketAddr>,
    /// Under which address services reach it, where that is another: behind a proxy, say, which may add TLS.
    #[arg(
        long,
        value_name = "URL",
        env = "WELLSPRING_CALLBACK_URL",
        requires = "callback_listen"
    )]
    callback_url: Option<String>,
}

impl CallbackArgs {
    /// Begins to listen, where that is asked for.
    pub(crate) fn open(&self, runtime: &Runtime) -> anyhow::Result<Option<Arc<Callbacks>>> {
        let Some(address) = self.callback_listen else {
            return Ok(None);
        };
        let callbacks = runtime.block_on(Callbacks::open(address, self.callback_url.as_deref()))?;
        super::say::note(format_args!(
            "answers of external steps are taken at {}, as {}",
            callbacks.address(),
            callbacks.url()
        ));
        Ok(Some(callbacks))
    }
}
