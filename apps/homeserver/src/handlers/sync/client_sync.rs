//! Waiting for news, and answering: the loop's side of `/sync`.
//!
//! Whether there can be news is decided from positions in memory; only if there may be is the
//! database asked. Who waits takes an observer before looking, so that news between the look and the
//! wait is not lost.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ropewalk::cache::{DeferredCache, LruCache, ResponseCache};
use ropewalk::{Deferred, Failure, Reactor, TimeoutError};
use ruma::api::client::sync::sync_events::v3::Filter;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};

use super::StateBlock;
use super::body;
use super::filter::{Members, SyncFilter};
use super::from_memory::{self, FromMemory};
use super::lazy_members::{LazyMembers, SharedSentMembers};
use super::question::{Question, ReadCaches};
use super::tails::Tails;
use crate::handlers::typing::Typing;
use crate::handlers::{Refusal, wall_clock_ms};
use crate::storage::StorageError;
use crate::storage::databases::main::filters;
use crate::storage::engine::Database;
use crate::streams::{Notifier, Stream, StreamToken};

/// The longest wait. Proxies give up before that; a client that wants more asks again.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);

/// How many stored filters are kept compiled.
const FILTERS_MAX: usize = 1_000;

/// How many users' lists of people they ignore are kept.
const IGNORING_USERS_MAX: usize = 20_000;

/// How often a room's tail is read on for one answer, when news keeps coming meanwhile.
const READ_ON_MAX: usize = 3;

/// A request as it came, with its parameters read.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SyncRequest {
    /// Who asks.
    pub user_id: OwnedUserId,
    /// On which device.
    pub device_id: Option<OwnedDeviceId>,
    /// How far the client has read.
    pub since: Option<StreamToken>,
    /// What it wants.
    pub(crate) filter: Arc<SyncFilter>,
    /// Whether it wants the state of all rooms although it has a token.
    pub full_state: bool,
    /// Which of the two state blocks it wants.
    pub(crate) block: StateBlock,
    /// How long to wait if there is nothing.
    pub timeout: Duration,
}

impl SyncRequest {
    /// Whether the answer is due even if nothing is new.
    fn is_due_at_once(&self) -> bool {
        self.since.is_none() || self.full_state || self.timeout.is_zero()
    }
}

/// What becomes of a request that comes again while the first one is being answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RepeatedRequests {
    /// It gets an answer of its own.
    Answer,
    /// It gets the answer of the first.
    Join,
}

/// Answers `/sync`. A cheap handle.
#[derive(Clone)]
pub struct ClientSync {
    inner: Rc<Inner>,
}

struct Inner {
    reactor: Reactor,
    database: Database,
    notifier: Notifier,
    typing: Typing,
    caches: Arc<ReadCaches>,
    lazy_members: RefCell<LazyMembers>,
    filters: DeferredCache<(OwnedUserId, String), Arc<SyncFilter>>,
    answers: ResponseCache<SyncRequest, Bytes>,
    repeated: RepeatedRequests,
    tails: Rc<Tails>,
    /// Whom each user ignores, and the position of his account data at which that was so.
    ignored: LruCache<OwnedUserId, (i64, Rc<BTreeSet<OwnedUserId>>)>,
    is_stopping: Cell<bool>,
}

impl ClientSync {
    /// Answers from `database`.
    pub fn new(
        reactor: &Reactor,
        database: Database,
        typing: Typing,
        repeated: RepeatedRequests,
    ) -> Self {
        let caches = Arc::<ReadCaches>::default();
        let inner = Inner {
            notifier: database.notifier().clone(),
            tails: Rc::new(Tails::new(database.clone(), Arc::clone(&caches))),
            ignored: LruCache::new(IGNORING_USERS_MAX),
            database,
            typing,
            caches,
            lazy_members: RefCell::default(),
            filters: DeferredCache::new(FILTERS_MAX),
            answers: ResponseCache::with_cancellable_work(reactor, Duration::ZERO),
            repeated,
            reactor: reactor.clone(),
            is_stopping: Cell::new(false),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Compiles the filter of a request: inline, or one that was stored.
    ///
    /// # Errors
    ///
    /// `M_INVALID_PARAM` if there is no such filter.
    pub(crate) async fn filter(
        &self,
        user_id: &UserId,
        filter: Option<Filter>,
    ) -> Result<Arc<SyncFilter>, Failure> {
        let filter_id = match filter {
            None => return Ok(Arc::default()),
            Some(Filter::FilterDefinition(definition)) => {
                return Ok(Arc::new((&definition).into()));
            }
            // What looks like a definition and was not read as one is no id either.
            Some(Filter::FilterId(text)) if text.starts_with('{') => {
                let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
                return Err(match is_json {
                    true => Refusal::bad_json("the filter is not what a filter looks like"),
                    false => Refusal::not_json("the filter is not JSON"),
                }
                .into());
            }
            Some(Filter::FilterId(filter_id)) => filter_id,
            Some(_) => return Err(Refusal::invalid_param("the filter cannot be read").into()),
        };
        let key = (user_id.to_owned(), filter_id);
        let (user_id, filter_id) = key.clone();
        let read = read_filter(self.inner.database.clone(), user_id, filter_id);
        // A stored filter never changes, so nothing invalidates this.
        self.inner.filters.fetch(key, || self.inner.reactor.spawn(read)).await
    }

    /// Answers a request, after a wait if there is nothing new.
    ///
    /// Equal requests of one device share one answer. Cancelling ends the wait when nobody else waits
    /// for the same.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn sync(&self, request: SyncRequest) -> Result<Bytes, Failure> {
        if let (Some(since), true) = (request.since, request.timeout.is_zero())
            && !request.full_state
            && let Some(token) = self.inner.nothing_since(&request.user_id, since)
        {
            return Ok(body::nothing_new(&token).into());
        }
        let inner = Rc::clone(&self.inner);
        if inner.repeated == RepeatedRequests::Answer {
            return inner.answer(request).await;
        }
        let work = request.clone();
        self.inner
            .answers
            .wrap(request, |_| {
                let reactor = inner.reactor.clone();
                reactor.spawn(async move { inner.answer(work).await })
            })
            .await
    }

    /// Answers everybody who waits, now and from now on: the server stops.
    pub fn stop_waiting(&self) {
        self.inner.is_stopping.set(true);
        self.inner.notifier.wake_all();
    }

    /// Returns the caches that readers share.
    pub(crate) fn caches(&self) -> &Arc<ReadCaches> {
        &self.inner.caches
    }
}

impl Inner {
    /// If nothing has happened for a user after `since`, returns how far that is certain.
    fn nothing_since(&self, user_id: &UserId, since: StreamToken) -> Option<StreamToken> {
        // The client may be ahead of the news: its token came with rows whose news is on its way.
        (!self.notifier.has_news(user_id, &since)).then(|| since.max(&self.notifier.now()))
    }

    async fn answer(&self, request: SyncRequest) -> Result<Bytes, Failure> {
        let timeout = request.timeout.min(TIMEOUT_MAX);
        let deadline = self.reactor.now() + timeout;
        // Up to here nothing is new; grows with each look that finds nothing.
        let mut checked = request.since;
        loop {
            let is_last_look = request.is_due_at_once() || self.is_stopping.get();
            let news = (!is_last_look).then(|| Observer::new(&self.notifier, &request.user_id));
            let quiet = match checked {
                Some(checked) if !request.full_state => {
                    self.nothing_since(&request.user_id, checked)
                }
                _ => None,
            };
            let Some(quiet) = quiet else {
                // What was found empty need not be looked through again.
                let (next_batch, body) = match self.recall(&request, checked).await? {
                    Some(found) => found,
                    None => self.ask_database(&request, checked).await?,
                };
                match body {
                    Some(body) => return Ok(body),
                    None if is_last_look => return Ok(body::nothing_new(&next_batch).into()),
                    None => checked = Some(next_batch),
                }
                continue;
            };
            let left = deadline.since(self.reactor.now());
            let Some(news) = news.filter(|_| !left.is_zero()) else {
                return Ok(body::nothing_new(&quiet).into());
            };
            checked = Some(quiet);
            match news.wait(&self.reactor, left).await {
                Ok(()) => {}
                Err(failure) if failure.is::<TimeoutError>() => {
                    // Unless there has been news at this very moment, the next turn ends it.
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Asks the database. Gives how far the answer reaches, and its body unless nothing in it is new.
    async fn ask_database(
        &self,
        request: &SyncRequest,
        since: Option<StreamToken>,
    ) -> Result<Found, Failure> {
        let question = self.question(request, since);
        let snapshot = self.notifier.snapshot();
        let answer = self.database.read(move |txn| question.answer(txn)).await?;
        let user_id = &request.user_id;
        self.notifier.register(user_id, answer.joined, &snapshot);
        let position = answer.next_batch.position(Stream::AccountData);
        if self.ignored.peek(user_id).is_none_or(|(known, _)| known <= position) {
            self.ignored.insert(user_id.clone(), (position, Rc::new(answer.ignored)));
        }
        // A client that knows nothing is answered even if there is nothing to know.
        let tells = !answer.is_empty || since.is_none() || request.full_state;
        Ok((answer.next_batch, tells.then(|| answer.body.into())))
    }

    /// Puts the answer together from memory. `None` if that cannot be done.
    async fn recall(
        &self,
        request: &SyncRequest,
        since: Option<StreamToken>,
    ) -> Result<Option<Found>, Failure> {
        let Some(since) = since.filter(|_| from_memory::is_ordinary(request)) else {
            return Ok(None);
        };
        let user_id = &request.user_id;
        'look: for _ in 0..READ_ON_MAX {
            let Some(mut rooms) = self.notifier.rooms_with_news(user_id, &since) else { break };
            let Some((_, ignored)) = self.ignored.get(user_id) else { break };
            rooms.retain(|(room_id, _)| request.filter.admits_room(room_id));
            if rooms.len() > from_memory::ROOMS_MAX {
                break;
            }
            let mut tails = BTreeMap::new();
            for (room_id, news) in &rooms {
                let Some(tail) = self.tails.find(room_id, &since, news) else {
                    if self.tails.read_on(room_id, &since).await? {
                        // There may be more news by now.
                        continue 'look;
                    }
                    return Ok(None);
                };
                tails.insert(&**room_id, tail);
            }
            let upto = since.max(&self.notifier.now());
            let sent_members = self.sent_members(request);
            let found = FromMemory {
                request,
                since,
                upto,
                typing: &self.typing.news(Some(since.position(Stream::Typing))),
                ignored: &ignored,
                sent_members: sent_members.as_ref(),
                unread: &self.caches.unread,
                now_ms: wall_clock_ms(&self.reactor),
            }
            .answer(&tails);
            return Ok(found.map(|body| (upto, body.map(Bytes::from))));
        }
        Ok(None)
    }

    fn sent_members(&self, request: &SyncRequest) -> Option<SharedSentMembers> {
        match &request.device_id {
            Some(device_id) if request.filter.members == Members::Lazy => {
                Some(self.lazy_members.borrow_mut().of(&request.user_id, device_id))
            }
            _ => None,
        }
    }

    fn question(&self, request: &SyncRequest, since: Option<StreamToken>) -> Question {
        let typing = self.typing.news(since.map(|since| since.position(Stream::Typing)));
        Question {
            user_id: request.user_id.clone(),
            device_id: request.device_id.clone(),
            since,
            filter: Arc::clone(&request.filter),
            full_state: request.full_state,
            block: request.block,
            typing,
            now_ms: wall_clock_ms(&self.reactor),
            caches: Arc::clone(&self.caches),
            sent_members: self.sent_members(request),
        }
    }
}

/// How far an answer reaches, and its body unless nothing in it is new.
type Found = (StreamToken, Option<Bytes>);

/// A wait for a user's news, which is taken back when it is dropped.
struct Observer {
    news: Option<Deferred<()>>,
}

impl Observer {
    fn new(notifier: &Notifier, user_id: &UserId) -> Self {
        Self { news: Some(notifier.observe(user_id)) }
    }

    /// Waits for the news.
    ///
    /// # Errors
    ///
    /// [`TimeoutError`] if none comes in time.
    async fn wait(mut self, reactor: &Reactor, limit: Duration) -> Result<(), Failure> {
        match self.news.take() {
            Some(news) => news.with_timeout(reactor, limit).await,
            None => Ok(()),
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        if let Some(news) = self.news.take() {
            // A deferred that is merely dropped would go on waiting.
            news.cancel();
            let _ = news.into_result();
        }
    }
}

async fn read_filter(
    database: Database,
    user_id: OwnedUserId,
    filter_id: String,
) -> Result<Arc<SyncFilter>, Failure> {
    let unknown = || Refusal::invalid_param(format!("there is no filter {filter_id:?}"));
    let number: i64 = filter_id.parse().map_err(|_| unknown())?;
    let stored = database
        .read(move |txn| filters::find(txn, &user_id, number))
        .await?
        .ok_or_else(unknown)?;
    let definition: ruma::api::client::filter::FilterDefinition = serde_json::from_str(&stored)
        .map_err(|_| StorageError::damaged("a stored filter cannot be read"))?;
    Ok(Arc::new((&definition).into()))
}
