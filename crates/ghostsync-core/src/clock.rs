//! Time as a parameter: the only place that reads the system's clocks.

use std::fmt;

use jiff::Timestamp;

/// Tells the time. Tests bring their own.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The wall-clock time; it may jump, and no decision about safety rests on it.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "this is the clock that callers may pass")]
        Timestamp::now()
    }
}

/// Measures elapsed time for reports and progress, never for decisions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "reports of elapsed time decide nothing")]
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
