//! `[recaptcha]`: pictures to click on at registration.

use super::section::section;
use super::values::{Secret, WebAddress};

section! {
    /// Pictures to click on at registration.
    Recaptcha {
        /// Where answers are checked.
        siteverify_url: Option<WebAddress> = None, example "\"https://captcha.example/siteverify\"";
        /// The key that browsers see.
        public_key: String = String::new();
        /// The key that they do not.
        private_key: Option<Secret> = None, example "\"a key\"";
    }
}
