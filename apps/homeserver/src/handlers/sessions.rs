//! Who is calling: access tokens, and the devices that they were given to.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ropewalk::cache::LruCache;
use ropewalk::{Failure, Instant, Reactor};
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use zeroize::Zeroizing;

use super::{Refusal, wall_clock_ms};
use crate::config::Secret;
use crate::storage::StorageError;
use crate::storage::databases::main::access_tokens::{self, TokenHash};
use crate::storage::databases::main::devices;
use crate::storage::engine::{Database, WriteTxn};

/// Who is calling.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Requester {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device whose token came with the request.
    pub device_id: OwnedDeviceId,
}

/// How many tokens are remembered, each in some 300 bytes. More active devices than that are served
/// from the database, at one indexed read a request.
const REMEMBERED_MAX: usize = 10_000;

/// How exactly we know when a device was last used; each time costs a write.
const LAST_SEEN_PRECISION: Duration = Duration::from_secs(300);

/// The longest device id that a client may choose, in bytes, and the longest display name, in
/// characters; longer names are cut.
const DEVICE_ID_BYTES_MAX: usize = 255;
const DISPLAY_NAME_CHARS_MAX: usize = 100;

/// Access tokens and what they stand for.
pub struct Sessions {
    reactor: Reactor,
    database: Database,
    known: LruCache<TokenHash, Rc<Known>>,
    /// The tokens that are remembered, by their devices.
    by_device: Rc<RefCell<BTreeMap<(OwnedUserId, OwnedDeviceId), TokenHash>>>,
    /// Counts removals, so that a lookup which began before one does not bring back what it
    /// removed.
    removals: Cell<u64>,
}

struct Known {
    requester: Requester,
    /// When the database was last told that the device is in use.
    noted_at: Cell<Option<Instant>>,
}

impl Sessions {
    /// Looks tokens up in `database`.
    pub fn new(reactor: Reactor, database: Database) -> Self {
        let known = LruCache::new(REMEMBERED_MAX);
        Self { reactor, database, known, by_device: Rc::default(), removals: Cell::new(0) }
    }

    /// Finds out who is calling.
    ///
    /// # Errors
    ///
    /// `M_UNKNOWN_TOKEN` if the token was never given out or does not work any more.
    pub async fn requester(&self, token: &str) -> Result<Requester, Failure> {
        let hash = TokenHash::of(token);
        let known = match self.known.get(&hash) {
            Some(known) => known,
            None => self.look_up(hash).await?,
        };
        self.note_use(&known);
        Ok(known.requester.clone())
    }

    async fn look_up(&self, hash: TokenHash) -> Result<Rc<Known>, Failure> {
        let removals = self.removals.get();
        let owner = self
            .database
            .read(move |txn| access_tokens::owner(txn, &hash))
            .await?
            .ok_or_else(|| Refusal::unknown_token(false))?;
        let requester = Requester { user_id: owner.user_id, device_id: owner.device_id };
        let known = Rc::new(Known { requester, noted_at: Cell::new(None) });
        if self.removals.get() == removals {
            self.remember(hash, &known);
        }
        Ok(known)
    }

    fn remember(&self, hash: TokenHash, known: &Rc<Known>) {
        let device = (known.requester.user_id.clone(), known.requester.device_id.clone());
        let by_device = Rc::downgrade(&self.by_device);
        let its_device = device.clone();
        let forgotten = Rc::new(move || {
            let Some(by_device) = by_device.upgrade() else { return };
            let mut by_device = by_device.borrow_mut();
            // The device may have another token by now.
            if by_device.get(&its_device) == Some(&hash) {
                by_device.remove(&its_device);
            }
        });
        self.known.insert_with(hash, known.clone(), vec![forgotten]);
        // Last, because two requests may have looked the same token up: putting the second answer in
        // takes the first one out, and that one's callback ends with the device forgotten. A token
        // that is known but not by its device would outlive its logout.
        self.by_device.borrow_mut().insert(device, hash);
    }

    fn note_use(&self, known: &Known) {
        let now = self.reactor.now();
        let fresh = known.noted_at.get().is_some_and(|at| now.since(at) < LAST_SEEN_PRECISION);
        if fresh {
            return;
        }
        known.noted_at.set(Some(now));
        let (requester, ts) = (known.requester.clone(), wall_clock_ms(&self.reactor));
        // Nobody waits for this; a failure is logged.
        let noted = self.database.write("note device use", move |txn| {
            devices::note_use(txn, &requester.user_id, &requester.device_id, ts)
        });
        noted.detach();
    }

    /// Ends the session of one device: the device is gone, and its token with it.
    pub async fn log_out(&self, requester: Requester) -> Result<(), Failure> {
        self.delete_devices(requester.user_id, vec![requester.device_id]).await
    }

    /// Removes devices of a user; ids that he has not got are ignored.
    pub async fn delete_devices(
        &self,
        user_id: OwnedUserId,
        device_ids: Vec<OwnedDeviceId>,
    ) -> Result<(), Failure> {
        let user = user_id.clone();
        let ids = device_ids.clone();
        self.database
            .write("delete devices", move |txn| {
                ids.iter().try_for_each(|id| devices::delete(txn, &user, id).map(|_| ()))
            })
            .await?;
        self.forget(&user_id, |device_id| device_ids.iter().any(|id| id == device_id));
        Ok(())
    }

    /// Removes all devices of a user, except perhaps one.
    pub async fn delete_all_devices(
        &self,
        user_id: OwnedUserId,
        kept: Option<OwnedDeviceId>,
    ) -> Result<(), Failure> {
        let (user, kept_device) = (user_id.clone(), kept.clone());
        self.database
            .write("delete all devices", move |txn| {
                devices::delete_all_except(txn, &user, kept_device.as_deref())
            })
            .await?;
        self.forget(&user_id, |device_id| Some(device_id) != kept.as_deref());
        Ok(())
    }

    /// Forgets tokens that do not work any more.
    pub(super) fn forget(&self, user_id: &UserId, gone: impl Fn(&DeviceId) -> bool) {
        self.removals.set(self.removals.get() + 1);
        let first = (user_id.to_owned(), OwnedDeviceId::from(""));
        let hashes: Vec<TokenHash> = self
            .by_device
            .borrow()
            .range(first..)
            .take_while(|((user, _), _)| user == user_id)
            .filter(|((_, device_id), _)| gone(device_id))
            .map(|(_, hash)| *hash)
            .collect();
        for hash in hashes {
            self.known.remove(&hash);
        }
    }

    /// Makes a token for a device that is about to be logged in; [`NewSession::store`] makes it
    /// work.
    ///
    /// # Errors
    ///
    /// `M_INVALID_PARAM` if the client's device id is empty or too long.
    pub fn prepare(
        &self,
        device_id: Option<OwnedDeviceId>,
        display_name: Option<&str>,
    ) -> Result<NewSession, Refusal> {
        let device_id = match device_id {
            Some(id) if id.as_str().is_empty() || id.as_str().len() > DEVICE_ID_BYTES_MAX => {
                let message = format!("device ids have from 1 to {DEVICE_ID_BYTES_MAX} bytes");
                return Err(Refusal::invalid_param(message));
            }
            Some(id) => id,
            None => self.new_device_id(),
        };
        let mut bytes = Zeroizing::new([0u8; 32]);
        self.reactor.random_bytes(bytes.as_mut());
        // The prefix lets scanners find tokens that were published by accident.
        let token = Secret::new(format!("rwt_{}", URL_SAFE_NO_PAD.encode(*bytes)));
        Ok(NewSession {
            device_id,
            display_name: display_name
                .map(|name| name.chars().take(DISPLAY_NAME_CHARS_MAX).collect()),
            hash: TokenHash::of(token.expose()),
            token,
            now_ts: wall_clock_ms(&self.reactor),
        })
    }

    fn new_device_id(&self) -> OwnedDeviceId {
        let mut bytes = [0u8; 10];
        self.reactor.random_bytes(&mut bytes);
        // A slight preference for the first letters does not matter: ids need not be secret.
        let letters = bytes.map(|byte| char::from(b'A' + byte % 26));
        String::from_iter(letters).into()
    }
}

/// A session that is about to begin.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The device.
    pub device_id: OwnedDeviceId,
    /// Its access token.
    pub token: Secret,
    display_name: Option<String>,
    hash: TokenHash,
    now_ts: i64,
}

impl NewSession {
    /// Makes the device if it is new, and the token the only one that works for it.
    pub fn store(&self, txn: &WriteTxn<'_>, user_id: &UserId) -> Result<(), StorageError> {
        let name = self.display_name.as_deref();
        devices::insert_if_missing(txn, user_id, &self.device_id, name, self.now_ts)?;
        access_tokens::replace(txn, user_id, &self.device_id, &self.hash, self.now_ts)
    }
}
