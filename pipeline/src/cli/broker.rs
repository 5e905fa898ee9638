//! `wellspring broker`: the embedded Kafka broker by itself, until it is told to stop.
//! Fails where the address is not loopback or taken, or the data folder is in use or damaged.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use wellspring_broker::{BrokerConfig, EmbeddedBroker};

use super::{common, say};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  wellspring broker --data ~/wellspring-broker --listen 127.0.0.1:9092\n\n\
                  Prints `listening on HOST:PORT` once clients can connect. Stops on ctrl-c or SIGTERM; what was \
                  acknowledged survives even kill -9."
)]
pub(crate) struct Args {
    /// Folder of topics and offsets; made where absent.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Loopback address and port; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    listen: String,
    /// Where clients are told to connect, for a proxy or a tunnel in between. Default: where it listens.
    #[arg(long, value_name = "IP:PORT")]
    advertise: Option<SocketAddr>,
}

pub(crate) fn execute(args: Args) -> anyhow::Result<ExitCode> {
    common::runtime()?.block_on(async {
        // Before the address is told: whoever reads it may stop us at once.
        let stop = stop_signal()?;
        let config = BrokerConfig {
            advertise: args.advertise,
            ..BrokerConfig::default()
        };
        let broker = EmbeddedBroker::start_with(&args.data, &args.listen, config).await?;
        say::line(format!("listening on {}", broker.bootstrap()));
        stop.await;
        tracing::info!("stopping");
        broker.shutdown().await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Completes at ctrl-c or SIGTERM. The handlers are in place when this returns.
#[cfg(unix)]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let hook = |kind| signal(kind).context("signals cannot be received");
    let mut interrupt = hook(SignalKind::interrupt())?;
    let mut terminate = hook(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Completes at ctrl-c.
#[cfg(not(unix))]
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    Ok(async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "ctrl-c cannot be received; stopping");
        }
    })
}
