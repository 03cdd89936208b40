//! The certificate authorities that the machine trusts.

use ropewalk::tls::ClientTls;
use ropewalk::{Deferred, Reactor};

/// Why the machine's certificate authorities could not be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "found no certificate authorities on this machine ({problems}); install them (the package is often called \
     ca-certificates), or name a file with your own"
)]
pub struct SystemRootsError {
    /// What went wrong on the way, if anything did.
    problems: String,
}

/// Reads the certificate authorities that the machine trusts, in a thread, and makes the beginnings of a
/// configuration that trusts them. For [`AgentOptions::tls`](super::AgentOptions::tls):
///
/// ```no_run
/// # use ropewalk::Reactor;
/// # use ropewalk_http::{Agent, AgentOptions, AgentRequest, system_roots};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let reactor = Reactor::new()?;
/// let handle = reactor.clone();
/// let page = reactor.spawn(async move {
///     let tls = system_roots(&handle).await?.alpn(["http/1.1"]).config(&handle)?;
///     let agent = Agent::new(&handle, AgentOptions { tls: Some(tls), ..AgentOptions::default() });
///     agent.fetch(AgentRequest::get("https://hs.example/_matrix/client/versions")?, 65_536).await
/// });
/// println!("{}", reactor.run_until(page).map_err(|failure| failure.to_string())?.head.status());
/// # Ok(())
/// # }
/// ```
///
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` in the environment are honoured.
///
/// # Errors
///
/// [`SystemRootsError`] if not one was found.
#[track_caller]
pub fn system_roots(reactor: &Reactor) -> Deferred<ClientTls> {
    reactor.defer_to_thread(|| {
        let found = rustls_native_certs::load_native_certs();
        let problems: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let problems = problems.join("; ");
        let roots = ClientTls::new().roots_from_der(found.certs);
        if !problems.is_empty() && roots.is_ok() {
            log::warn!("some certificate authorities cannot be read: {problems}");
        }
        roots.map_err(|_| SystemRootsError { problems })
    })
}
