//! People on a homeserver, as far as the tests of bad input and of durability need them.
//!
//! The client scenarios use real client libraries instead.

use serde_json::{Value, json};

use crate::http::Answer;
use crate::server::Homeserver;

/// Somebody with an account and a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Person {
    /// Full user id.
    pub id: String,
    /// Access token of the device.
    pub token: String,
    /// Id of the device.
    pub device: String,
}

/// Percent-encodes everything that is special in a path.
#[must_use]
pub fn escape(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let piece = |byte: u8| {
        if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    text.bytes().map(piece).collect()
}

impl Homeserver {
    /// Registers somebody through the dummy stage.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    #[must_use]
    pub fn register(&self, name: &str) -> Person {
        let body = json!({
            "username": name,
            "password": format!("a long password for {name}"),
            "auth": {"type": "m.login.dummy"},
        });
        let answer = self.post("register", None, &body);
        assert_eq!(answer.status, 200, "registering {name}: {answer}");
        Person::of(&answer.json())
    }

    /// Makes a `POST` below `/_matrix/client/v3/`.
    #[must_use]
    pub fn post(&self, path: &str, person: Option<&Person>, body: &Value) -> Answer {
        self.client_api("POST", path, person, body)
    }

    /// Makes a `PUT` below `/_matrix/client/v3/`.
    #[must_use]
    pub fn put(&self, path: &str, person: &Person, body: &Value) -> Answer {
        self.client_api("PUT", path, Some(person), body)
    }

    /// Makes a `GET` below `/_matrix/client/v3/`.
    #[must_use]
    pub fn get(&self, path: &str, person: Option<&Person>) -> Answer {
        let target = format!("/_matrix/client/v3/{path}");
        self.request("GET", &target, person.map(|person| person.token.as_str()), b"")
    }

    fn client_api(
        &self,
        method: &str,
        path: &str,
        person: Option<&Person>,
        body: &Value,
    ) -> Answer {
        let target = format!("/_matrix/client/v3/{path}");
        let token = person.map(|person| person.token.as_str());
        self.request(method, &target, token, body.to_string().as_bytes())
    }

    /// Makes a room, with what `body` asks for, and returns its id.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    #[must_use]
    pub fn create_room(&self, creator: &Person, body: &Value) -> String {
        let answer = self.post("createRoom", Some(creator), body);
        assert_eq!(answer.status, 200, "creating a room: {answer}");
        text(&answer.json(), "room_id")
    }

    /// Makes a private room with two members, and returns its id.
    ///
    /// # Panics
    ///
    /// If the server refuses.
    #[must_use]
    pub fn create_room_of_two(&self, creator: &Person, guest: &Person) -> String {
        let room = self.create_room(creator, &json!({"invite": [guest.id]}));
        let answer = self.post(&format!("rooms/{}/join", escape(&room)), Some(guest), &json!({}));
        assert_eq!(answer.status, 200, "joining: {answer}");
        room
    }

    /// Sends a text message under a transaction id.
    #[must_use]
    pub fn send_text(&self, room: &str, sender: &Person, transaction: &str, body: &str) -> Answer {
        let path = format!("rooms/{}/send/m.room.message/{transaction}", escape(room));
        self.put(&path, sender, &json!({"msgtype": "m.text", "body": body}))
    }
}

impl Person {
    /// Reads the answer of a registration or a login.
    ///
    /// # Panics
    ///
    /// If something is missing.
    #[must_use]
    pub fn of(answer: &Value) -> Self {
        Self {
            id: text(answer, "user_id"),
            token: text(answer, "access_token"),
            device: text(answer, "device_id"),
        }
    }
}

/// Returns a string member of an object.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn text(object: &Value, key: &str) -> String {
    let found = object[key].as_str();
    found.unwrap_or_else(|| panic!("no {key} in {object}")).to_owned()
}
