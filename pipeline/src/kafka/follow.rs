//! Follows topics on a thread of its own: every further record is handed over as it comes.
//!
//! The thread ends when it is told to, when whoever it reads for is gone, or when Kafka cannot be read any more, which is
//! told once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use super::tail::{Polled, Tail, TailRecord};

/// How often a thread without news looks whether it should end.
const LOOK: Duration = Duration::from_millis(200);

/// The thread, once it is started.
#[derive(Debug, Default)]
pub struct Following {
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Following {
    /// Starts to read on for `reader`: `take` gets every record, `failed` why there are no more.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start<T: Send + Sync + 'static>(
        &self,
        name: &'static str,
        mut tail: Tail,
        reader: Weak<T>,
        take: fn(&T, &TailRecord),
        failed: fn(&T, String),
    ) -> io::Result<()> {
        let stop = Arc::clone(&self.stop);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            loop {
                let polled = tail.poll(LOOK);
                let Some(reader) = reader.upgrade() else { return };
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                match polled {
                    Ok(Polled::Record(record)) => take(&reader, &record),
                    Ok(Polled::AtEnd(_) | Polled::Nothing) => {}
                    Err(error) => {
                        let message = crate::error::chain(&error);
                        tracing::error!(message, "{name} cannot be followed any more");
                        failed(&reader, message);
                        return;
                    }
                }
            }
        })?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Stops and waits for the thread, so that Kafka may go away.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread that follows topics panicked");
        }
    }
}
