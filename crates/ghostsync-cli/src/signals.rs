//! SIGINT and SIGTERM: the first asks everything to stop, the second ends the program at once.

use std::sync::Arc;

use ghostsync_core::observer::Interrupt;
use ghostsync_core::{Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::exit::Exit;
use crate::render;

/// The wish to stop, for those who look at it between steps and for those who wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    pub(crate) interrupt: Interrupt,
    arrived: Arc<Notify>,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// `LocalIo` if the system lets nobody listen.
    pub(crate) fn listen() -> Result<Self> {
        let failed = |error| Error::new(ErrorKind::LocalIo, error);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let signals = Self::default();
        let told = signals.clone();
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let name = next().await;
            told.interrupt.set();
            told.arrived.notify_one();
            render::message(&format!("{name}: stopping; once more to stop at once"));
            next().await;
            std::process::exit(Exit::Interrupted.code().into());
        });
        Ok(signals)
    }

    /// Runs what may be dropped at any point, such as reading, until it is done or a signal arrives.
    ///
    /// # Errors
    /// `Interrupted` if a signal came first.
    pub(crate) async fn unless_interrupted<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = work => result,
            () = self.arrived.notified() => {
                // Whoever waits next is to know as well.
                self.arrived.notify_one();
                Err(Error::new(ErrorKind::Interrupted, "interrupted"))
            }
        }
    }
}
