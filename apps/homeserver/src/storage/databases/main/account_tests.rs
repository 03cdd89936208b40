//! The tables of accounts, on a database of their own.

use ruma::{OwnedUserId, UserId, device_id, event_id, room_alias_id, room_id, user_id};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::access_tokens::TokenHash;
use super::users::NewUser;
use super::*;
use crate::config::Secret;
use crate::storage::StorageError;
use crate::storage::engine::{Durability, LocalDatabase, Txn, WriteTxn};

struct Fixture {
    database: LocalDatabase,
    _folder: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = LocalDatabase::open(&folder.path().join("test.db"), Durability::Process);
        Self { database: database.expect("a database"), _folder: folder }
    }

    fn write<T: Send + 'static>(
        &mut self,
        f: impl FnOnce(&mut WriteTxn<'_>) -> Result<T, StorageError> + Send + 'static,
    ) -> T {
        self.database.write(f).expect("written")
    }

    fn read<T>(&self, f: impl FnOnce(&Txn<'_>) -> Result<T, StorageError>) -> T {
        self.database.read(f).expect("read")
    }
}

fn alice() -> &'static UserId {
    user_id!("@alice:hs.example")
}

fn new_user(user_id: &UserId) -> NewUser {
    let password_hash = Some(Secret::new("$argon2id$".to_owned()));
    NewUser { user_id: OwnedUserId::from(user_id), password_hash, created_ts: 5, is_admin: false }
}

#[test]
fn a_name_is_given_out_once_even_after_its_account_was_closed() {
    let mut db = Fixture::new();
    assert!(db.write(|txn| users::insert(txn, &new_user(alice()))));
    assert!(!db.write(|txn| users::insert(txn, &new_user(alice()))));
    let user = db.read(|txn| users::find(txn, alice())).expect("there");
    assert!(!user.is_deactivated && user.password_hash.is_some());

    db.write(|txn| users::deactivate(txn, alice(), true));
    db.write(|txn| users::set_password_hash(txn, alice(), &Secret::new("new".to_owned())));
    db.write(|txn| users::deactivate(txn, alice(), false));
    let user = db.read(|txn| users::find(txn, alice())).expect("there");
    assert!(user.is_deactivated && user.is_erased);
    assert_eq!(user.password_hash, None, "a closed account cannot be opened again");
    assert!(!db.write(|txn| users::insert(txn, &new_user(alice()))));
}

#[test]
fn a_token_speaks_for_its_device_until_it_is_replaced_or_the_device_goes() {
    let mut db = Fixture::new();
    let (first, second) = (TokenHash::of("first"), TokenHash::of("second"));
    let phone = device_id!("PHONE");
    db.write(move |txn| {
        devices::insert_if_missing(txn, alice(), phone, Some("Phone"), 1)?;
        access_tokens::replace(txn, alice(), phone, &first, 1)
    });
    let owner = db.read(|txn| access_tokens::owner(txn, &first)).expect("known");
    assert_eq!((&*owner.user_id, &*owner.device_id), (alice(), phone));

    db.write(move |txn| access_tokens::replace(txn, alice(), phone, &second, 2));
    assert_eq!(db.read(|txn| access_tokens::owner(txn, &first)), None);
    assert!(db.read(|txn| access_tokens::owner(txn, &second)).is_some());

    assert!(db.write(|txn| devices::delete(txn, alice(), phone)));
    assert_eq!(db.read(|txn| access_tokens::owner(txn, &second)), None);
    assert!(!db.write(|txn| devices::delete(txn, alice(), phone)));
}

#[test]
fn no_token_is_in_the_file_in_the_clear() {
    let mut db = Fixture::new();
    let hash = TokenHash::of("rwt_very-secret-token");
    db.write(move |txn| access_tokens::replace(txn, alice(), device_id!("A"), &hash, 1));
    let path = db.database.path().to_owned();
    drop(db.database);
    let bytes = std::fs::read(path).expect("the file");
    assert!(!bytes.windows(11).any(|window| window == b"very-secret"));
}

#[test]
fn devices_keep_their_name_are_renamed_and_go_together() {
    let mut db = Fixture::new();
    for id in ["A", "B", "C"] {
        let name = format!("device {id}");
        db.write(move |txn| {
            devices::insert_if_missing(txn, alice(), id.into(), Some(&name), 1)?;
            devices::insert_if_missing(txn, alice(), id.into(), Some("again"), 2)
        });
    }
    assert!(db.write(|txn| devices::rename(txn, alice(), device_id!("B"), None)));
    assert!(!db.write(|txn| devices::rename(txn, alice(), device_id!("X"), Some("x"))));
    db.write(|txn| devices::note_use(txn, alice(), device_id!("A"), 77));
    let all = db.read(|txn| devices::of_user(txn, alice()));
    assert_eq!(all.len(), 3);
    assert_eq!(all[0].display_name.as_deref(), Some("device A"));
    assert_eq!(all[0].last_seen_ts, Some(77));
    assert_eq!(all[1].display_name, None);

    let gone = db.write(|txn| devices::delete_all_except(txn, alice(), Some(device_id!("B"))));
    assert_eq!(gone, ["A", "C"]);
    assert!(db.read(|txn| devices::find(txn, alice(), device_id!("B"))).is_some());
}

#[test]
fn profile_fields_come_and_go() {
    let mut db = Fixture::new();
    db.write(|txn| {
        profiles::set(txn, alice(), "displayname", &json!("Alice"))?;
        profiles::set(txn, alice(), "displayname", &json!("Alice A."))?;
        profiles::set(txn, alice(), "org.example.x", &json!({"y": [1, null]}))
    });
    let name = db.read(|txn| profiles::of_member(txn, alice()));
    assert_eq!(name, (Some("Alice A.".to_owned()), None));
    let all = db.read(|txn| profiles::all(txn, alice()));
    assert_eq!(all.keys().collect::<Vec<_>>(), ["displayname", "org.example.x"]);
    db.write(|txn| profiles::delete(txn, alice(), "displayname"));
    assert_eq!(db.read(|txn| profiles::field(txn, alice(), "displayname")), None);
    db.write(|txn| profiles::delete_all(txn, alice()));
    assert!(db.read(|txn| profiles::all(txn, alice())).is_empty());
}

#[test]
fn account_data_is_found_by_place_and_by_position() {
    let mut db = Fixture::new();
    let room = room_id!("!room:hs.example");
    let first = db.write(|txn| account_data::set(txn, alice(), None, "m.direct", "{}"));
    let second = db.write(|txn| account_data::set(txn, alice(), Some(room), "x", r#"{"a":1}"#));
    let third = db.write(|txn| account_data::set(txn, alice(), None, "m.direct", r#"{"b":2}"#));
    assert!(first < second && second < third);
    assert_eq!(
        db.read(|txn| account_data::find(txn, alice(), None, "m.direct")).as_deref(),
        Some(r#"{"b":2}"#)
    );
    assert_eq!(db.read(|txn| account_data::find(txn, alice(), None, "x")), None);
    let changed = db.read(|txn| account_data::changed(txn, alice(), first, third));
    let places: Vec<_> = changed.iter().map(|entry| entry.room_id.as_deref()).collect();
    assert_eq!(places, [Some(room), None]);
    assert_eq!(db.read(|txn| account_data::changed(txn, alice(), first, second)).len(), 1);
    assert_eq!(db.read(|txn| account_data::of_user(txn, alice())).len(), 2);
    assert_eq!(db.read(|txn| account_data::of_room(txn, alice(), room)).len(), 1);
}

#[test]
fn tags_are_one_entry_of_account_data() {
    let mut db = Fixture::new();
    let room = room_id!("!room:hs.example");
    db.write(|txn| room_tags::set(txn, alice(), room, "m.favourite", json!({"order": 0.5})));
    db.write(|txn| room_tags::set(txn, alice(), room, "u.work", json!({})));
    db.write(|txn| room_tags::delete(txn, alice(), room, "m.favourite"));
    let position = |db: &Fixture| {
        db.read(|txn| account_data::of_room(txn, alice(), room)).first().map(|e| e.stream_id)
    };
    let before = position(&db);
    db.write(|txn| room_tags::delete(txn, alice(), room, "u.never"));
    assert_eq!(position(&db), before, "removing nothing is no news");
    let content = db.read(|txn| account_data::find(txn, alice(), Some(room), "m.tag"));
    let content: Value = serde_json::from_str(&content.expect("there")).expect("JSON");
    assert_eq!(content, json!({"tags": {"u.work": {}}}));
}

#[test]
fn filters_are_numbered_from_zero_and_the_same_text_has_the_same_number() {
    let mut db = Fixture::new();
    let bob = user_id!("@bob:hs.example");
    for (user, json, expected) in
        [(alice(), "{}", 0), (alice(), "{\"a\":1}", 1), (alice(), "{}", 0), (bob, "{\"b\":1}", 0)]
    {
        assert_eq!(db.write(move |txn| filters::insert(txn, user, json)), Some(expected));
    }
    assert_eq!(db.read(|txn| filters::find(txn, alice(), 1)).as_deref(), Some("{\"a\":1}"));
    assert_eq!(db.read(|txn| filters::find(txn, bob, 1)), None);
    db.write(|txn| {
        (2..filters::FILTERS_PER_USER_MAX)
            .try_for_each(|number| filters::insert(txn, alice(), &number.to_string()).map(|_| ()))
    });
    assert_eq!(db.write(|txn| filters::insert(txn, alice(), "one more")), None);
    assert_eq!(db.write(|txn| filters::insert(txn, alice(), "{}")), Some(0));
}

#[test]
fn private_receipts_are_for_their_owner() {
    let mut db = Fixture::new();
    let (room, bob) = (room_id!("!room:hs.example"), user_id!("@bob:hs.example"));
    db.write(move |txn| {
        receipts::set(txn, room, "m.read", alice(), "", event_id!("$1"), 1)?;
        receipts::set(txn, room, "m.read.private", alice(), "", event_id!("$2"), 2)?;
        receipts::set(txn, room, "m.read", bob, "main", event_id!("$1"), 3)?;
        receipts::set(txn, room, "m.read", alice(), "", event_id!("$3"), 4)
    });
    let seen_by = |reader| db.read(|txn| receipts::of_room(txn, room, reader, 0, i64::MAX)).len();
    assert_eq!((seen_by(alice()), seen_by(bob)), (3, 2));
    let found = db.read(|txn| receipts::find(txn, room, "m.read", alice(), ""));
    assert_eq!(found.expect("there"), "$3");
    let last = db.read(|txn| receipts::of_room(txn, room, bob, 3, i64::MAX));
    assert_eq!(last.iter().map(|r| r.event_id.as_str()).collect::<Vec<_>>(), ["$3"]);
}

#[test]
fn an_alias_stands_for_one_room() {
    let mut db = Fixture::new();
    let (alias, room) = (room_alias_id!("#a:hs.example"), room_id!("!r:hs.example"));
    assert!(db.write(move |txn| room_aliases::insert(txn, alias, room, alice(), 1)));
    let other = room_id!("!other:hs.example");
    assert!(!db.write(move |txn| room_aliases::insert(txn, alias, other, alice(), 1)));
    assert_eq!(db.read(|txn| room_aliases::find(txn, alias)).expect("there").room_id, room);
    assert_eq!(db.read(|txn| room_aliases::of_room(txn, room)), [alias]);
    assert!(db.write(move |txn| room_aliases::delete(txn, alias)));
    assert!(!db.write(move |txn| room_aliases::delete(txn, alias)));
}

#[test]
fn push_rules_are_news_once() {
    let mut db = Fixture::new();
    db.write(|txn| push_rules::set(txn, alice(), "{}"));
    assert_eq!(db.read(|txn| push_rules::changed(txn, alice(), 0, 1)).as_deref(), Some("{}"));
    assert_eq!(db.read(|txn| push_rules::changed(txn, alice(), 1, 9)), None);
}

#[test]
fn registration_tokens_run_out_by_use_and_by_date() {
    let mut db = Fixture::new();
    assert!(db.write(|txn| registration_tokens::insert(txn, "twice", Some(2), None)));
    assert!(!db.write(|txn| registration_tokens::insert(txn, "twice", None, None)));
    db.write(|txn| registration_tokens::insert(txn, "soon", None, Some(100)));
    let usable = |db: &Fixture, token: &str, now| {
        db.read(|txn| registration_tokens::is_usable(txn, token, now))
    };
    assert!(usable(&db, "soon", 99) && !usable(&db, "soon", 100) && !usable(&db, "none", 1));

    assert!(db.write(|txn| registration_tokens::consume(txn, "twice", 1)));
    assert!(usable(&db, "twice", 1));
    assert!(db.write(|txn| registration_tokens::consume(txn, "twice", 1)));
    assert!(!usable(&db, "twice", 1));
    assert!(!db.write(|txn| registration_tokens::consume(txn, "twice", 1)));
    let all = db.read(registration_tokens::all);
    assert_eq!(all.iter().map(|token| token.token.as_str()).collect::<Vec<_>>(), ["soon", "twice"]);
    assert_eq!((all[1].uses_allowed, all[1].used, all[1].expiry_ts), (Some(2), 2, None));
    assert!(db.write(|txn| registration_tokens::delete(txn, "twice")));
    assert!(!db.write(|txn| registration_tokens::delete(txn, "twice")));
}
