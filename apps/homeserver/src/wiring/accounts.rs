//! Connects what accounts are made of: registration, logins, devices, profiles, settings.

use std::rc::Rc;

use ropewalk::Reactor;

use crate::api::client;
use crate::api::router::Router;
use crate::api::{admin, admin_tokens};
use crate::config::Config;
use crate::config::first_start::Prepared;
use crate::handlers::account_data::AccountData;
use crate::handlers::accounts::{Accounts, LeaveRooms};
use crate::handlers::admin_registration::AdminRegistration;
use crate::handlers::devices::Devices;
use crate::handlers::logins::Logins;
use crate::handlers::passwords::{self, Passwords};
use crate::handlers::profiles::{ProfileInRooms, Profiles};
use crate::handlers::push_rules::PushRules;
use crate::handlers::rate_limits::RateLimiter;
use crate::handlers::registration::{Parts, Registration};
use crate::handlers::registration_tokens::RegistrationTokens;
use crate::handlers::sessions::Sessions;
use crate::handlers::ui_auth::UiAuth;
use crate::storage::engine::Database;

/// What the rooms' part of the server does for accounts.
pub(super) struct RoomHooks {
    /// Takes closed accounts out of their rooms.
    pub(super) leave: Rc<dyn LeaveRooms>,
    /// Shows new names and pictures in rooms.
    pub(super) profile: Rc<dyn ProfileInRooms>,
}

/// What all parts of the server share.
pub(super) struct Shared<'s> {
    pub(super) reactor: &'s Reactor,
    pub(super) database: &'s Database,
    pub(super) limiter: &'s Rc<RateLimiter>,
}

/// The parts, connected.
pub(super) struct AccountParts {
    accounts: Rc<Accounts>,
    account_data: AccountData,
    admin_registration: Rc<AdminRegistration>,
    devices: Devices,
    logins: Rc<Logins>,
    profiles: Rc<Profiles>,
    push_rules: PushRules,
    registration: Rc<Registration>,
    registration_tokens: RegistrationTokens,
    sessions: Rc<Sessions>,
}

impl AccountParts {
    /// Makes and connects them.
    pub(super) fn new(
        config: &Config,
        prepared: &Prepared,
        shared: Shared<'_>,
        sessions: &Rc<Sessions>,
        rooms: RoomHooks,
    ) -> Self {
        let Shared { reactor, database, limiter } = shared;
        let server_name = &config.server_name;
        let pool = reactor.thread_pool(passwords::pool_options());
        let passwords = Passwords::new(reactor.clone(), pool, config.passwords.fast_hash);
        let ui_auth = UiAuth::new(reactor.clone());
        let logins = Rc::new(Logins::new(
            reactor.clone(),
            database.clone(),
            passwords.clone(),
            Rc::clone(sessions),
            Rc::clone(limiter),
            server_name.clone(),
        ));
        let registration = Rc::new(Registration::new(Parts {
            reactor: reactor.clone(),
            database: database.clone(),
            passwords: passwords.clone(),
            sessions: Rc::clone(sessions),
            ui_auth: ui_auth.clone(),
            limiter: Rc::clone(limiter),
            server_name: server_name.clone(),
            rules: config.registration.clone(),
        }));
        Self {
            accounts: Rc::new(Accounts::new(
                database.clone(),
                passwords,
                Rc::clone(sessions),
                Rc::clone(&logins),
                ui_auth,
                rooms.leave,
            )),
            account_data: AccountData::new(database.clone()),
            admin_registration: Rc::new(AdminRegistration::new(
                reactor.clone(),
                Rc::clone(&registration),
                prepared.registration_secret.clone(),
                server_name.clone(),
            )),
            devices: Devices::new(database.clone()),
            logins,
            profiles: Rc::new(Profiles::new(database.clone(), server_name.clone(), rooms.profile)),
            push_rules: PushRules::new(database.clone()),
            registration,
            registration_tokens: RegistrationTokens::new(reactor.clone(), database.clone()),
            sessions: Rc::clone(sessions),
        }
    }

    /// Adds their routes.
    pub(super) fn routes(&self, router: &mut Router) {
        admin::routes(router, &self.admin_registration);
        admin_tokens::routes(router, &self.registration_tokens, &self.sessions);
        client::account::routes(router, &self.accounts);
        client::account_data::routes(router, &self.account_data);
        client::devices::routes(router, &self.devices, &self.accounts);
        client::login::routes(router, &self.logins, &self.sessions);
        client::profile::routes(router, &self.profiles);
        client::push_rules::routes(router, &self.push_rules);
        client::register::routes(router, &self.registration);
    }
}
