//! The one file that sees every layer: it makes the parts, connects them and orders their start and
//! stop.

mod accounts;
mod certificate;
mod listeners;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ropewalk::logging::LogOptions;
use ropewalk::{Deferred, Failure, MultiService, Reactor, Service, Signal};
use ropewalk_http::Handler;

use self::accounts::{AccountParts, RoomHooks, Shared};
use self::listeners::Listener;
use crate::api::client;
use crate::api::client::public_rooms::Readers;
use crate::api::router::Router;
use crate::config::first_start::{self, Prepared};
use crate::config::listen::HttpsListener;
use crate::config::{Config, lock_file};
use crate::events::RoomWriter;
use crate::handlers::directory::Directory;
use crate::handlers::history::History;
use crate::handlers::housekeeping::Housekeeping;
use crate::handlers::members::RoomMembers;
use crate::handlers::membership::Memberships;
use crate::handlers::messages_send::Messages;
use crate::handlers::rate_limits::RateLimiter;
use crate::handlers::receipts::Receipts;
use crate::handlers::room_work::RoomWork;
use crate::handlers::rooms::{Publication, Rooms};
use crate::handlers::sessions::Sessions;
use crate::handlers::state::RoomState;
use crate::handlers::sync::question::ReadCaches;
use crate::handlers::sync::{ClientSync, RepeatedRequests};
use crate::handlers::typing::Typing;
use crate::model::{EventSigner, RoomVersion, SigningKeyPair};
use crate::storage::engine::{Database, Durability};
use crate::storage::schema;

#[cfg(test)]
mod tests;

/// How long requests that are under way at SIGTERM may take until the process ends without them.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// A homeserver, made and connected, without a listener.
pub struct Homeserver {
    /// Answers requests.
    pub handler: Rc<dyn Handler>,
    /// Holds the long polls; answers them at the end.
    pub sync: ClientSync,
    /// Where everything is kept.
    pub database: Database,
}

/// Makes a homeserver on `reactor`: opens the database and connects the parts.
///
/// Tests and simulations build it on a manual clock and put its handler on a memory transport.
///
/// # Errors
///
/// [`StorageError`](crate::storage::StorageError) if the database cannot be opened.
pub fn build(config: &Config, prepared: &Prepared, reactor: &Reactor) -> Deferred<Homeserver> {
    let config = config.clone();
    let key = &prepared.signing_key;
    let signer = SigningKeyPair::new(key.version(), key.seed())
        .map(|pair| Arc::new(EventSigner::new(config.server_name.clone(), pair)));
    let prepared = prepared.clone();
    let reactor = reactor.clone();
    let database = Database::open(
        &reactor,
        &config.paths.database,
        Durability::Sync,
        config.database.threads.get(),
        schema::STEPS,
    );
    database.add_callback(move |database| {
        let sessions = Rc::new(Sessions::new(reactor.clone(), database.clone()));
        let receipts = Receipts::new(&reactor, database.clone());
        let typing = Typing::new(&reactor, database.clone());
        let repeated = match config.sync.response_cache {
            true => RepeatedRequests::Join,
            false => RepeatedRequests::Answer,
        };
        let sync = ClientSync::new(&reactor, database.clone(), typing.clone(), repeated);
        let history = History::new(&reactor, database.clone(), sync.caches().clone());
        let members = RoomMembers::new(&reactor, database.clone(), sync.caches().clone());
        let limiter = Rc::new(RateLimiter::new(&config.rate_limits));
        let writer = RoomWriter::new(signer?);
        let work = RoomWork::new(reactor.clone(), database.clone(), writer, Rc::clone(&limiter));
        let memberships = Rc::new(Memberships::new(work.clone()));
        let rooms = RoomHooks { leave: memberships.clone(), profile: memberships };
        let parts = Shared { reactor: &reactor, database: &database, limiter: &limiter };
        let accounts = AccountParts::new(&config, &prepared, parts, &sessions, rooms);
        let mut router = Router::new(reactor, Rc::clone(&sessions));
        accounts.routes(&mut router);
        client::capabilities::routes(&mut router, &config.default_room_version);
        client::discovery::routes(&mut router, &config);
        client::history::routes(&mut router, &history);
        client::members::routes(&mut router, &members);
        client::receipts::routes(&mut router, &receipts);
        room_routes(&mut router, &config, &work, &sessions, sync.caches())?;
        client::sync::routes(&mut router, &sync);
        client::typing::routes(&mut router, &typing);
        let handler = Rc::new(router.finish()?);
        Ok(Homeserver { handler, sync, database })
    })
}

/// Adds everything that is done to rooms.
fn room_routes(
    router: &mut Router,
    config: &Config,
    work: &RoomWork,
    sessions: &Rc<Sessions>,
    caches: &Arc<ReadCaches>,
) -> Result<(), Failure> {
    let publication = match config.room_directory.allow_publication {
        true => Publication::Allowed,
        false => Publication::Refused,
    };
    let readers = match config.federation.public_rooms_without_auth {
        true => Readers::Everybody,
        false => Readers::Users,
    };
    let version = RoomVersion::try_from(config.default_room_version.as_str())?;
    let directory = Directory::new(work.clone(), caches.clone(), publication);
    client::create_room::routes(router, &Rooms::new(work.clone(), version, publication));
    client::directory::routes(router, &directory);
    client::membership::routes(router, &Memberships::new(work.clone()));
    client::public_rooms::routes(router, &directory, sessions, readers);
    client::send::routes(router, &Messages::new(work.clone()));
    client::state::routes(router, &RoomState::new(work.clone(), caches.clone()));
    Ok(())
}

/// Runs a homeserver until SIGINT or SIGTERM.
///
/// # Errors
///
/// Whatever keeps it from starting; all of it before the listener opens.
pub fn serve(config: Config) -> Result<(), Failure> {
    let options = LogOptions { level: config.log_level, ..LogOptions::default() };
    ropewalk::logging::install(options)?;
    let reactor = Reactor::new()?;
    let prepared = first_start::prepare(&config, &mut |bytes| reactor.random_bytes(bytes))?;
    let _lock = lock_file::claim(&config.paths.data_dir)?;
    for warning in config.warnings.iter().chain(&prepared.warnings) {
        log::warn!("{warning}");
    }
    let homeserver = reactor.run_until(build(&config, &prepared, &reactor))?;
    let listener = Rc::new(Listener::http(&config.listen.http, &homeserver, &reactor)?);

    let services = MultiService::new("homeserver", STOP_LIMIT);
    services.add(Housekeeping::new(reactor.clone(), homeserver.database.clone()));
    services.add_shared(listener.clone());
    if let Some(https) = &config.listen.https {
        services.add(Listener::https(https, &homeserver, &reactor)?);
    }
    reactor.run_until(services.start(&reactor))?;
    stop_on_signals(&reactor, &services)?;

    let url = listener.url();
    let program = program_name();
    // The terminal may have gone away; the server need not.
    let mut stdout = io::stdout().lock();
    let _ = stdout
        .write_all(first_start::welcome(&config, &url, &program).as_bytes())
        .and_then(|()| stdout.flush());
    drop(stdout);
    reactor.run()?;
    Ok(())
}

/// Says what is wrong with the certificate of a TLS listener. Blocks.
///
/// # Errors
///
/// If it cannot be read, or not be used.
pub(crate) fn check_certificate(https: &HttpsListener) -> Result<(), Box<dyn Error>> {
    certificate::Certificate::load(https)?;
    Ok(())
}

/// The first SIGINT or SIGTERM stops the services in order, the second one ends the process at once.
fn stop_on_signals(reactor: &Reactor, services: &MultiService) -> io::Result<()> {
    let is_stopping = Rc::new(std::cell::Cell::new(false));
    for signal in [Signal::Interrupt, Signal::Terminate] {
        let (stopping, services, handle) =
            (Rc::clone(&is_stopping), services.clone(), reactor.clone());
        reactor.on_signal(signal, move || {
            if stopping.replace(true) {
                log::warn!("told to stop a second time; ending at once");
                std::process::exit(1);
            }
            log::info!("stopping");
            let handle = handle.clone();
            services
                .stop()
                .add_both(move |_| {
                    handle.stop();
                    Ok(())
                })
                .detach();
        })?;
    }
    Ok(())
}

fn program_name() -> String {
    std::env::args_os()
        .next()
        .map(PathBuf::from)
        .map_or_else(|| "homeserver".to_owned(), |path| path.display().to_string())
}
