//! Runs a broker until it is killed or its standard input closes: `serve DIR ADDRESS`. Prints the
//! address it listens on. The durability tests start and kill this.

use std::io::{Read, Write};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(listen)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve DIR ADDRESS".into());
    };
    let broker = wellspring_broker::EmbeddedBroker::start(dir.as_ref(), &listen).await?;
    let mut output = std::io::stdout();
    writeln!(output, "{}", broker.bootstrap())?;
    output.flush()?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    broker.shutdown().await?;
    Ok(())
}
