//! The notifier: how far each stream has come, and who waits for it to move.
//!
//! News is a name and a number; whoever is woken reads the rows from storage. For each user that
//! synchronises, the notifier remembers which rooms wake it and the position of the last news, so
//! that "nothing has happened since your token" is answered without the database.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use ropewalk::cache::StreamChangeCache;
use ropewalk::{Deferred, Resolver};
use ruma::{OwnedRoomId, OwnedUserId, UserId};

use super::{Stream, StreamToken};

/// Users whose rooms are kept in memory. About 10 KiB each at a hundred rooms; past this number those
/// that nobody waits for are forgotten, and their next sync asks the database.
const USERS_MAX: usize = 20_000;

/// Rooms, and users, whose last piece of news is kept. It has to bridge only the time that one read
/// takes; past this number a registration counts as having news.
const RECENT_MAX: usize = 10_000;

/// Where the streams stood at one moment; taken before a read, given back with what it found.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// The positions: a read that stops there sees all that had happened.
    pub token: StreamToken,
    /// How many times the streams had moved.
    moves: u64,
}

/// Who has to look at a stream again.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Wake {
    /// The rooms of this user have changed: what is remembered of them no longer holds.
    Rooms(OwnedUserId),
    /// Everybody in a room.
    Room(Stream, OwnedRoomId),
    /// One user.
    User(Stream, OwnedUserId),
}

/// Tells positions and news. A cheap handle; clones are the same notifier.
#[derive(Clone)]
pub struct Notifier {
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    now: StreamToken,
    moves: u64,
    recent_rooms: StreamChangeCache<OwnedRoomId>,
    recent_users: StreamChangeCache<OwnedUserId>,
    users: BTreeMap<OwnedUserId, Listening>,
    /// For each room the registered users in it.
    rooms: HashMap<OwnedRoomId, Audience>,
}

/// The registered users of one room.
#[derive(Default)]
struct Audience {
    /// Ordered, because it decides who is woken first.
    users: BTreeSet<OwnedUserId>,
    /// The position of the last news in each stream; news from before somebody registered counts as
    /// having come right then.
    last_news: StreamToken,
}

/// What is known of a user that synchronises.
struct Listening {
    rooms: Vec<OwnedRoomId>,
    /// The position of the last news in each stream; news before the registration counts as having
    /// come right at it.
    last_news: StreamToken,
    /// The same for news that is the user's own, not of a room.
    own_news: StreamToken,
    /// From here on the rooms' own positions tell what is news for the user.
    known_from: StreamToken,
    /// Whether the rooms have changed since the registration.
    is_stale: bool,
    waiting: Vec<Resolver<()>>,
}

impl Notifier {
    /// Makes a notifier for streams that stand at these positions.
    pub fn new(positions: &BTreeMap<Stream, i64>) -> Self {
        let now = positions
            .iter()
            .fold(StreamToken::new(), |token, (&stream, &position)| token.with(stream, position));
        Self {
            inner: Rc::new(RefCell::new(Inner {
                now,
                moves: 0,
                recent_rooms: StreamChangeCache::new(0, RECENT_MAX),
                recent_users: StreamChangeCache::new(0, RECENT_MAX),
                users: BTreeMap::new(),
                rooms: HashMap::new(),
            })),
        }
    }

    /// Returns how far the streams have come: everything up to there can be read.
    pub fn now(&self) -> StreamToken {
        self.inner.borrow().now
    }

    /// Returns where the streams stand, to be taken before a read.
    pub fn snapshot(&self) -> Snapshot {
        let inner = self.inner.borrow();
        Snapshot { token: inner.now, moves: inner.moves }
    }

    /// Returns how far `stream` has come.
    pub fn position(&self, stream: Stream) -> i64 {
        self.now().position(stream)
    }

    /// Remembers that news of `rooms` concerns `user_id`, as was read from storage behind `as_of`.
    ///
    /// Waiting observers stay. News since `as_of` in one of the rooms, or for the user, is not lost:
    /// [`has_news`](Self::has_news) tells of it.
    pub fn register(&self, user_id: &UserId, rooms: Vec<OwnedRoomId>, as_of: &Snapshot) {
        let mut inner = self.inner.borrow_mut();
        let waiting = inner.forget(user_id);
        if inner.users.len() >= USERS_MAX {
            inner.forget_idle();
        }
        let user_moved = inner.recent_users.has_entity_changed(&user_id.to_owned(), as_of.moves);
        let moved = user_moved
            || rooms.iter().any(|room| inner.recent_rooms.has_entity_changed(room, as_of.moves));
        for room_id in &rooms {
            let audience = inner.rooms.entry(room_id.clone()).or_default();
            if audience.users.is_empty() {
                audience.last_news = as_of.token;
            }
            audience.users.insert(user_id.to_owned());
        }
        let last_news = if moved { inner.now } else { as_of.token };
        let listening = Listening {
            rooms,
            last_news,
            own_news: if user_moved { inner.now } else { as_of.token },
            known_from: last_news,
            // What moved the user may have been a change of its rooms.
            is_stale: user_moved,
            waiting,
        };
        inner.users.insert(user_id.to_owned(), listening);
    }

    /// Whether something may have happened for `user_id` after `since`. "No" is certain.
    pub fn has_news(&self, user_id: &UserId, since: &StreamToken) -> bool {
        match self.inner.borrow().users.get(user_id) {
            Some(listening) if !listening.is_stale => !since.covers(&listening.last_news),
            _ => true,
        }
    }

    /// Returns the rooms with news for `user_id` after `since`, each with the position of its last news.
    ///
    /// `None` if that cannot be told from memory: the user is not registered since then, or there is
    /// news of his own besides.
    pub fn rooms_with_news(
        &self,
        user_id: &UserId,
        since: &StreamToken,
    ) -> Option<Vec<(OwnedRoomId, StreamToken)>> {
        let inner = self.inner.borrow();
        let listening = inner.users.get(user_id).filter(|listening| {
            !listening.is_stale
                && since.covers(&listening.known_from)
                && since.covers(&listening.own_news)
        })?;
        let news = listening.rooms.iter().filter_map(|room_id| {
            let last_news = inner.rooms.get(room_id)?.last_news;
            (!since.covers(&last_news)).then(|| (room_id.clone(), last_news))
        });
        Some(news.collect())
    }

    /// Returns a deferred that fires with the next news for `user_id`.
    ///
    /// Take it before looking whether there is news, and nothing is missed. It fires at once if the
    /// user is not [registered](Self::register). Cancelling it ends the wait.
    pub fn observe(&self, user_id: &UserId) -> Deferred<()> {
        let (news, resolver) = Deferred::new();
        if let Some(listening) = self.inner.borrow_mut().users.get_mut(user_id) {
            // Those that have been cancelled meanwhile go, so that the list is as long as the number
            // of requests that really wait.
            listening.waiting.retain(|resolver| !resolver.is_cancelled());
            listening.waiting.push(resolver);
        } else {
            resolver.callback(());
        }
        news
    }

    /// Notes that streams have moved, then wakes whom it concerns, in the order of user ids.
    pub fn advance(&self, advanced: &[(Stream, i64)], wakes: &[Wake]) {
        let mut inner = self.inner.borrow_mut();
        inner.moves += 1;
        let moves = inner.moves;
        for &(stream, position) in advanced {
            if position > inner.now.position(stream) {
                inner.now = inner.now.with(stream, position);
            }
        }
        let mut woken: BTreeMap<OwnedUserId, Vec<Resolver<()>>> = BTreeMap::new();
        for wake in wakes {
            match wake {
                Wake::Rooms(user_id) => {
                    inner.recent_users.entity_has_changed(user_id.clone(), moves);
                    if let Some(listening) = inner.users.get_mut(user_id) {
                        listening.is_stale = true;
                    }
                    inner.own_news(user_id, Stream::Events, &mut woken);
                }
                Wake::Room(stream, room_id) => {
                    inner.recent_rooms.entity_has_changed(room_id.clone(), moves);
                    // Taken out for the walk, and put back: nothing in between looks at it.
                    if let Some(mut audience) = inner.rooms.remove(room_id) {
                        let position = inner.now.position(*stream);
                        audience.last_news = audience.last_news.with(*stream, position);
                        for user_id in &audience.users {
                            inner.news(user_id, *stream, &mut woken);
                        }
                        inner.rooms.insert(room_id.clone(), audience);
                    }
                }
                Wake::User(stream, user_id) => {
                    inner.recent_users.entity_has_changed(user_id.clone(), moves);
                    inner.own_news(user_id, *stream, &mut woken);
                }
            }
        }
        drop(inner);
        for resolver in woken.into_values().flatten() {
            resolver.callback(());
        }
    }

    /// Answers everybody who waits, as at shutdown.
    pub fn wake_all(&self) {
        let mut inner = self.inner.borrow_mut();
        let waiting: Vec<Resolver<()>> =
            inner.users.values_mut().flat_map(|user| user.waiting.drain(..)).collect();
        drop(inner);
        for resolver in waiting {
            resolver.callback(());
        }
    }
}

impl Inner {
    /// Notes news of the user's own.
    fn own_news(
        &mut self,
        user_id: &UserId,
        stream: Stream,
        woken: &mut BTreeMap<OwnedUserId, Vec<Resolver<()>>>,
    ) {
        let position = self.now.position(stream);
        if let Some(listening) = self.users.get_mut(user_id) {
            listening.own_news = listening.own_news.with(stream, position);
        }
        self.news(user_id, stream, woken);
    }

    fn news(
        &mut self,
        user_id: &UserId,
        stream: Stream,
        woken: &mut BTreeMap<OwnedUserId, Vec<Resolver<()>>>,
    ) {
        let position = self.now.position(stream);
        if let Some(listening) = self.users.get_mut(user_id) {
            listening.last_news = listening.last_news.with(stream, position);
            if !listening.waiting.is_empty() {
                woken.entry(user_id.to_owned()).or_default().append(&mut listening.waiting);
            }
        }
    }

    /// Takes a user out; returns who waits for it.
    fn forget(&mut self, user_id: &UserId) -> Vec<Resolver<()>> {
        let Some(listening) = self.users.remove(user_id) else { return Vec::new() };
        for room_id in &listening.rooms {
            if let Some(audience) = self.rooms.get_mut(room_id) {
                audience.users.remove(user_id);
                if audience.users.is_empty() {
                    self.rooms.remove(room_id);
                }
            }
        }
        listening.waiting
    }

    fn forget_idle(&mut self) {
        let mut idle: Vec<OwnedUserId> = Vec::new();
        for (user_id, listening) in &mut self.users {
            listening.waiting.retain(|resolver| !resolver.is_cancelled());
            if listening.waiting.is_empty() {
                idle.push(user_id.clone());
            }
        }
        for user_id in idle {
            self.forget(&user_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};

    use super::*;

    fn notifier() -> Notifier {
        Notifier::new(&BTreeMap::from([(Stream::Events, 10)]))
    }

    #[test]
    fn an_unknown_user_may_always_have_news() {
        let notifier = notifier();
        assert!(notifier.has_news(user_id!("@a:b"), &notifier.now()));
    }

    #[test]
    fn news_of_a_room_reaches_its_registered_members_only() {
        let notifier = notifier();
        let since = notifier.now();
        let as_of = notifier.snapshot();
        notifier.register(user_id!("@in:b"), vec![room_id!("!r:b").to_owned()], &as_of);
        notifier.register(user_id!("@out:b"), vec![room_id!("!other:b").to_owned()], &as_of);
        let news = notifier.observe(user_id!("@in:b"));
        let silence = notifier.observe(user_id!("@out:b"));
        assert!(!notifier.has_news(user_id!("@in:b"), &since));

        let wake = Wake::Room(Stream::Events, room_id!("!r:b").to_owned());
        notifier.advance(&[(Stream::Events, 11)], &[wake]);

        assert!(news.is_fired());
        assert!(!silence.is_fired());
        assert!(notifier.has_news(user_id!("@in:b"), &since));
        assert!(!notifier.has_news(user_id!("@in:b"), &notifier.now()));
        assert!(!notifier.has_news(user_id!("@out:b"), &since));
        silence.cancel();
        let _ = silence.into_result();
    }

    #[test]
    fn a_registration_that_is_older_than_the_news_does_not_hide_it() {
        let notifier = notifier();
        let room = room_id!("!r:b").to_owned();
        let as_of = notifier.snapshot();
        notifier.advance(&[(Stream::Events, 11)], &[Wake::Room(Stream::Events, room.clone())]);
        notifier.register(user_id!("@a:b"), vec![room], &as_of);
        notifier.register(user_id!("@elsewhere:b"), Vec::new(), &as_of);
        assert!(notifier.has_news(user_id!("@a:b"), &as_of.token));
        assert!(!notifier.has_news(user_id!("@elsewhere:b"), &as_of.token));
    }

    #[test]
    fn a_change_of_rooms_during_the_read_leaves_the_registration_stale() {
        let notifier = notifier();
        let as_of = notifier.snapshot();
        notifier.advance(&[(Stream::Events, 11)], &[Wake::Rooms(user_id!("@a:b").to_owned())]);
        notifier.register(user_id!("@a:b"), Vec::new(), &as_of);
        assert!(notifier.has_news(user_id!("@a:b"), &notifier.now()));
    }

    #[test]
    fn a_change_of_rooms_makes_the_registration_stale() {
        let notifier = notifier();
        notifier.register(user_id!("@a:b"), Vec::new(), &notifier.snapshot());
        notifier.advance(&[(Stream::Events, 11)], &[Wake::Rooms(user_id!("@a:b").to_owned())]);
        assert!(notifier.has_news(user_id!("@a:b"), &notifier.now()));
        notifier.register(user_id!("@a:b"), Vec::new(), &notifier.snapshot());
        assert!(!notifier.has_news(user_id!("@a:b"), &notifier.now()));
    }

    #[test]
    fn rooms_with_news_are_told_apart_from_news_of_the_user() {
        let notifier = notifier();
        let (user, busy) = (user_id!("@a:b"), room_id!("!busy:b").to_owned());
        let rooms = vec![busy.clone(), room_id!("!quiet:b").to_owned()];
        let before = notifier.now();
        assert_eq!(notifier.rooms_with_news(user, &before), None, "not registered");
        notifier.register(user, rooms, &notifier.snapshot());
        assert_eq!(notifier.rooms_with_news(user, &before), Some(vec![]));
        notifier.advance(&[(Stream::Events, 11)], &[Wake::Room(Stream::Events, busy.clone())]);
        let news = notifier.rooms_with_news(user, &before);
        assert_eq!(news, Some(vec![(busy, notifier.now())]));
        let since = notifier.now();
        assert_eq!(notifier.rooms_with_news(user, &since), Some(vec![]));
        let older = StreamToken::new().with(Stream::Events, 9);
        assert_eq!(notifier.rooms_with_news(user, &older), None, "before the registration");
        let own = Wake::User(Stream::AccountData, user.to_owned());
        notifier.advance(&[(Stream::AccountData, 1)], &[own]);
        assert_eq!(notifier.rooms_with_news(user, &since), None);
        assert_eq!(notifier.rooms_with_news(user, &notifier.now()), Some(vec![]));
    }

    #[test]
    fn everybody_is_answered_at_shutdown() {
        let notifier = notifier();
        notifier.register(user_id!("@a:b"), Vec::new(), &notifier.snapshot());
        let waiting = notifier.observe(user_id!("@a:b"));
        notifier.wake_all();
        assert!(waiting.is_fired());
    }
}
