//! `[registration]`: who may make an account.

use std::path::PathBuf;

use super::section::section;
use super::values::Secret;

section! {
    /// Who may make an account. `homeserver register-user` works whatever is set here.
    Registration {
        /// Whether people can make accounts for themselves.
        open: bool = false;
        /// Open registration that asks for nothing is an invitation to spammers: the server refuses
        /// to listen beyond loopback with it unless this says that it is meant.
        open_without_verification: bool = false;
        /// Whether guests may come in without an account.
        guests: bool = false;
        /// The secret that `homeserver register-user` and the admin registration endpoint share
        /// with the server. Empty: one is made at first start and kept in
        /// data_dir/registration_shared_secret.
        shared_secret: Option<Secret> = None, example "\"a long random string\"";
        /// A file that holds the shared secret, instead of shared_secret.
        shared_secret_file: Option<PathBuf> = None, example "\"registration_secret\"";
        /// Whether a registration token has to be shown to make an account. Administrators make them with
        /// POST /_synapse/admin/v1/registration_tokens/new.
        tokens: bool = false;
    }
}
