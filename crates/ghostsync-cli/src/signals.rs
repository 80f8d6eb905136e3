//! SIGINT and SIGTERM: the first asks everything to stop, the second ends the program at once.

use ghostsync_core::interrupt::Interrupt;
use ghostsync_core::{Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;

/// Begins to listen: what is returned is set by the first signal, of which people are told.
///
/// # Errors
/// `LocalIo` if the system lets nobody listen.
pub fn listen(tell: impl Fn(&str) + Send + Sync + 'static) -> Result<Interrupt> {
    let failed = |error| Error::new(ErrorKind::LocalIo, error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let wish = Interrupt::default();
    let told = wish.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        told.set();
        tell(&format!("{name}: stopping; once more to stop at once"));
        next().await;
        std::process::exit(Exit::Interrupted.code().into());
    });
    Ok(wish)
}
