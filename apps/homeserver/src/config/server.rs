//! The top of the file: who the server is and where its data lives.

use std::path::PathBuf;

use ruma::{OwnedServerName, RoomVersionId};

use super::section::section;
use super::values::WebAddress;

section! {
    /// Who this server is.
    Server {
        /// The name behind the colon of every user id. It is the identity of the server: never
        /// change it later.
        server_name: Option<OwnedServerName> = None, example "\"example.org\"";
        /// Where clients reach the server, if not at https://<server_name>/: what
        /// /.well-known/matrix/client and links in mails say.
        public_base_url: Option<WebAddress> = None, example "\"https://matrix.example.org/\"";
        /// The folder for database, media and signing key; made if missing.
        data_dir: PathBuf = PathBuf::from("./homeserver-data");
        /// The file with the key that signs this server's events, relative to data_dir; made at
        /// first start.
        signing_key: PathBuf = PathBuf::from("signing.key");
        /// The version of rooms that are made without naming one, "6" to "12".
        default_room_version: RoomVersionId = RoomVersionId::V12;
        /// How much is logged: "error", "warn", "info", "debug" or "trace"; "off" for nothing.
        log_level: log::LevelFilter = log::LevelFilter::Info;
    }
}
