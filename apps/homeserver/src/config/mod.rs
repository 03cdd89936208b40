//! The configuration: `raw` is what was written, [`Config`] what the server runs on. One file a
//! section.
//!
//! Each section is declared once, in its file: names, types, documentation and defaults. The
//! reader, the defaults, the sample ([`sample`]) and the errors' examples all come from that
//! declaration, so they cannot drift apart.

pub mod appservices;
pub mod cas;
mod checked;
pub mod database;
mod document;
pub mod federation;
pub mod first_start;
pub mod listen;
pub mod lock_file;
pub mod media;
pub mod messages;
pub mod outgoing;
pub mod passwords;
pub mod presence;
pub mod rate_limits;
mod raw;
pub mod recaptcha;
pub mod registration;
pub mod replication;
pub mod room_directory;
mod sample;
pub mod secrets;
mod section;
pub mod server;
pub mod smtp;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod url_previews;
mod values;
pub mod workers;

pub use checked::{CONFIG_FILE_NAME, Config, DEFAULT_DATA_DIR, Paths};
pub use document::{ConfigErrors, ConfigProblem};
pub use registration::Registration;
pub use sample::sample;
pub use values::{ByteSize, HostPort, Network, PerSecond, Secret, WebAddress};
