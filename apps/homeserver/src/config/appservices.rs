//! `[appservices]`: bridges and other application services.

use std::path::PathBuf;

use super::section::section;

section! {
    /// Bridges and other application services.
    AppServices {
        /// Registration files in the ecosystem's YAML format.
        files: Vec<PathBuf> = Vec::new(), example "[\"bridge.yaml\"]";
    }
}
