//! `[replication]`: the line between the processes of one homeserver.

use std::path::PathBuf;

use super::section::section;
use super::values::{HostPort, Secret};

section! {
    /// The line between the processes of one homeserver.
    Replication {
        /// On the main process: where it listens.
        listen: Option<HostPort> = None, example "\"127.0.0.1:9092\"";
        /// On a worker: where the main process listens.
        main: Option<HostPort> = None, example "\"127.0.0.1:9092\"";
        /// Shared by all processes of the deployment.
        secret: Option<Secret> = None, example "\"a long random string\"";
        /// A file that holds the secret, instead of secret.
        secret_file: Option<PathBuf> = None, example "\"replication_secret\"";
        /// The certificate of this process, in PEM.
        tls_certificate: Option<PathBuf> = None, example "\"cert.pem\"";
        /// Its private key, in PEM.
        tls_private_key: Option<PathBuf> = None, example "\"key.pem\"";
        /// The authority that signed the certificates of all processes, in PEM.
        tls_ca: Option<PathBuf> = None, example "\"ca.pem\"";
    }
}
