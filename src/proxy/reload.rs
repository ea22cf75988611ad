//! The configuration, read again while the proxy runs.

use super::build::{self, Built};
use crate::config::Config;

/// Reads the configuration again, from where it came.
///
/// # Errors
/// Why it cannot be used, with all faults.
pub type Reread = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Why what held before holds on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The proxy was not started from a file.
    #[error("this proxy was not started from a configuration file")]
    Nowhere,
    /// The configuration cannot be used.
    #[error("{0}")]
    Faults(String),
}

/// Has the configuration as it is now hold, as far as it can. Returns the keys that wait for the next start.
pub(super) fn reload(built: &Built) -> Result<Vec<String>, ReloadError> {
    let result = try_reload(built);
    let metrics = &built.shared.metrics;
    match &result {
        Ok(pending) => {
            metrics.reloads.inc();
            tracing::info!("configuration reloaded");
            if !pending.is_empty() {
                let keys = pending.join(", ");
                tracing::warn!(keys, "changes that count from the next start");
            }
        }
        Err(error) => {
            metrics.reload_failures.inc();
            tracing::error!(%error, "configuration not reloaded");
        }
    }
    result
}

fn try_reload(built: &Built) -> Result<Vec<String>, ReloadError> {
    let reread = built.reread.as_ref().ok_or(ReloadError::Nowhere)?;
    let new = reread().map_err(ReloadError::Faults)?;
    let before = built.databases.settings();
    let (config, pending) = before.config.reloaded(new);
    let settings = build::settings(built, config);
    if built.databases.renew(settings) {
        built.shared.registry.wake_all();
    }
    built.renewed.notify_waiters();
    Ok(pending)
}
