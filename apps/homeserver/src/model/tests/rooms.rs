//! A room in memory, built event by event, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomId,
    UInt, UserId,
};
use serde_json::{Value, json};

use crate::model::auth::{check_against_state, check_without_state, select_auth_events};
use crate::model::{
    EventDraft, EventSigner, Forbidden, Pdu, Place, RoomVersion, SigningKeyPair, StateMap,
};

/// The seed of the specification's test vectors.
pub(crate) const SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

pub(crate) fn signer(server_name: &str) -> EventSigner {
    use ruma::serde::{Base64, base64::Standard};
    let seed: Base64<Standard> = Base64::parse(SEED).unwrap();
    let key_pair = SigningKeyPair::new("1", seed.as_bytes().try_into().unwrap()).unwrap();
    EventSigner::new(server_name.try_into().unwrap(), key_pair)
}

pub(crate) fn object(value: Value) -> CanonicalJsonObject {
    serde_json::from_value(value).expect("canonical")
}

pub(crate) fn user(name: &str) -> OwnedUserId {
    let id = if name.contains(':') { format!("@{name}") } else { format!("@{name}:domain") };
    UserId::parse(id).unwrap()
}

pub(crate) fn at(ts: u32) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::from(ts))
}

/// All events of one room, and the state after the latest one.
#[derive(Clone)]
pub(crate) struct Room {
    pub(crate) version: RoomVersion,
    signer: Arc<EventSigner>,
    pub(crate) events: BTreeMap<OwnedEventId, Arc<Pdu>>,
    pub(crate) create: Arc<Pdu>,
    pub(crate) heads: Vec<OwnedEventId>,
    pub(crate) state: StateMap,
    now: u32,
}

impl Room {
    /// A room with its creator joined and nothing else.
    pub(crate) fn new(version: RoomVersion, creator: &str) -> Self {
        Self::with_content(version, creator, json!({}))
    }

    pub(crate) fn with_content(version: RoomVersion, creator: &str, mut content: Value) -> Self {
        let signer = Arc::new(signer("domain"));
        content["room_version"] = version.as_str().into();
        if !version.rules().authorization.use_room_create_sender {
            content["creator"] = user(creator).as_str().into();
        }
        let draft = EventDraft::state(user(creator), "m.room.create", "", object(content));
        let place = Place::first(RoomId::parse("!room:domain").unwrap(), at(1));
        let create = Arc::new(signer.sign(version, draft, place).unwrap());
        check_without_state(version, &create, |_| None).expect("a good create event");
        let mut room = Self {
            version,
            signer,
            events: BTreeMap::new(),
            create: create.clone(),
            heads: vec![],
            state: StateMap::new(),
            now: 1,
        };
        room.keep(create);
        room.send(
            creator,
            "m.room.member",
            Some(user(creator).as_str()),
            json!({"membership": "join"}),
        )
        .expect("the creator joins");
        room
    }

    /// Builds on the heads, checks, and keeps the event if it is allowed.
    pub(crate) fn send(
        &mut self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Result<Arc<Pdu>, Forbidden> {
        let event = self.build(sender, event_type, state_key, content)?;
        self.check(&event)?;
        self.keep(event.clone());
        Ok(event)
    }

    pub(crate) fn build(
        &mut self,
        sender: &str,
        event_type: &str,
        state_key: Option<&str>,
        content: Value,
    ) -> Result<Arc<Pdu>, Forbidden> {
        self.now += 1;
        let draft = EventDraft {
            sender: user(sender),
            event_type: event_type.to_owned(),
            state_key: state_key.map(str::to_owned),
            content: object(content),
            redacts: None,
        };
        let auth_events = select_auth_events(
            self.version,
            event_type,
            &draft.sender,
            state_key,
            &draft.raw_content().unwrap(),
            |kind, key| self.state.get(kind, key).cloned(),
        )?;
        let depth = 1 + self.heads.iter().map(|id| self.events[id].depth()).max().unwrap_or(0);
        let place = Place {
            room_id: self.create.room_id().to_owned(),
            prev_events: self.heads.clone(),
            auth_events,
            depth,
            origin_server_ts: at(self.now),
        };
        let event = self.signer.sign(self.version, draft, place).expect("an event");
        // Others come to the same id and find nothing wrong with it.
        let theirs = Pdu::from_foreign(self.version, event.json()).expect("a good event");
        assert_eq!(theirs.event_id(), event.event_id());
        Ok(Arc::new(event))
    }

    pub(crate) fn check(&self, event: &Pdu) -> Result<(), Forbidden> {
        check_without_state(self.version, event, |id| self.event(id))?;
        check_against_state(self.version, event, |kind, key| self.event(self.state.get(kind, key)?))
    }

    pub(crate) fn keep(&mut self, event: Arc<Pdu>) {
        self.heads = vec![event.event_id().to_owned()];
        if let Some(state_key) = event.state_key() {
            self.state.insert(event.event_type(), state_key, event.event_id().to_owned());
        }
        self.events.insert(event.event_id().to_owned(), event);
    }

    pub(crate) fn event(&self, id: &EventId) -> Option<Arc<Pdu>> {
        self.events.get(id).cloned()
    }

    /// A member event; `target` may be the sender.
    pub(crate) fn member(
        &mut self,
        sender: &str,
        target: &str,
        membership: &str,
    ) -> Result<Arc<Pdu>, Forbidden> {
        let target = user(target);
        let content = json!({"membership": membership});
        self.send(sender, "m.room.member", Some(target.as_str()), content)
    }
}
