//! What is wrong with a spec. Each message names the JSON path, and says why.

use std::io;
use std::path::PathBuf;

/// A spec that cannot be read, or asks for what cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bundle has no readable `config.json`.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The text is not a valid OCI spec.
    #[error("{} is not a valid OCI spec: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// JSON path, reason, line and column.
        source: serde_path_to_error::Error<serde_json::Error>,
    },
    /// A field cannot be honoured.
    #[error("{field}: {reason}")]
    Field {
        /// JSON path.
        field: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl Error {
    /// A field that cannot be honoured.
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// Result of reading a spec.
pub type Result<T, E = Error> = std::result::Result<T, E>;
