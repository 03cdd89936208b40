//! `[media]`: pictures and files.

use std::path::PathBuf;
use std::time::Duration;

use super::section::section;
use super::values::ByteSize;

section! {
    /// Pictures and files.
    Media {
        /// The folder they are kept in, relative to data_dir.
        path: PathBuf = PathBuf::from("media");
        /// The largest file that can be uploaded.
        upload_bytes_max: ByteSize = ByteSize(50 << 20);
        /// How long copies of other servers' files are kept after they were last asked for.
        remote_retention: Duration = Duration::from_secs(90 * 86_400);
    }
}
