//! Questions to the operating system that no other crate asks for us.

/// Raises the soft limit of open descriptors to the hard one, as far as that is allowed.
///
/// The soft limit is low (often 1,024) only for the sake of programs that use `select`.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::warn!("cannot raise the limit of open descriptors: {error}");
    }
}
