//! The whole server in-process: requests over memory connections, time by a manual clock.

use std::net::SocketAddr;
use std::rc::Rc;

use http::{HeaderValue, Method, header};
use ropewalk::testing::{Clock, success_result_of};
use ropewalk::{ListenOptions, ListeningPort};
use ropewalk_http::{ClientOptions, ClientRequest, HttpClient, HttpFactory, Limits};
use ruma::{DeviceId, UserId};
use serde_json::Value;

use super::{Homeserver, build};
use crate::config::{Config, first_start};
use crate::storage::StorageError;
use crate::storage::databases::main::access_tokens::{self, TokenHash};
use crate::storage::databases::main::{devices, users};

mod accounts;
mod reading;
mod rooms;

/// A homeserver called `localhost`, and a client that speaks for anybody.
pub(crate) struct TestServer {
    clock: Clock,
    homeserver: Homeserver,
    client: HttpClient,
    address: SocketAddr,
    _port: ListeningPort,
    _folder: tempfile::TempDir,
}

impl TestServer {
    /// A server without rate limits.
    pub(crate) fn new() -> Self {
        Self::with(|config| config.rate_limits.enabled = false)
    }

    /// A server with a configuration of its own.
    pub(crate) fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let clock = Clock::new();
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::without_file(folder.path());
        configure(&mut config);
        let reactor = clock.reactor();
        let prepared =
            first_start::prepare(&config, &mut |bytes| reactor.random_bytes(bytes)).expect("files");
        let building = build(&config, &prepared, reactor);
        clock.pump();
        let homeserver = success_result_of(building);
        let handler = Rc::clone(&homeserver.handler);
        let factory = Rc::new(HttpFactory::new(reactor, handler, Limits::default()));
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let port =
            reactor.listen_tcp(any_port, factory, ListenOptions::default()).expect("listens");
        let address = port.local_address();
        let client = HttpClient::new(reactor, address, ClientOptions::default());
        Self { clock, homeserver, client, address, _port: port, _folder: folder }
    }

    /// Makes an account with a device `D`; its token is the name.
    pub(crate) fn add_user(&self, name: &str) {
        self.add(name, false);
    }

    /// As [`add_user`](Self::add_user), for somebody who administers the server.
    pub(crate) fn add_admin(&self, name: &str) {
        self.add(name, true);
    }

    fn add(&self, name: &str, is_admin: bool) {
        let user_id = UserId::parse(format!("@{name}:localhost")).expect("a user id");
        let token = name.to_owned();
        let adding = self.homeserver.database.write("add a user", move |txn| {
            let device_id: &DeviceId = "D".into();
            let user = users::NewUser {
                user_id: user_id.clone(),
                password_hash: None,
                created_ts: 0,
                is_admin,
            };
            users::insert(txn, &user)?;
            devices::insert_if_missing(txn, &user_id, device_id, None, 0)?;
            access_tokens::replace(txn, &user_id, device_id, &TokenHash::of(&token), 0)?;
            Ok::<_, StorageError>(())
        });
        self.clock.pump();
        success_result_of(adding);
    }

    /// Sends a request as `who` (empty: as nobody); returns status and body.
    pub(crate) fn send(&self, method: &str, path: &str, who: &str, body: &str) -> (u16, Value) {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let host = self.address.to_string();
        let mut request = ClientRequest::new(method, &host, path).expect("a request");
        if !who.is_empty() {
            let bearer = HeaderValue::try_from(format!("Bearer {who}")).expect("a token");
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let answer = self.client.request(request.with_body(body.to_owned()));
        self.clock.pump();
        let answer = success_result_of(answer);
        let status = answer.head.status().as_u16();
        let body = answer.body.collect(1 << 24);
        self.clock.pump();
        let body = success_result_of(body);
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// As [`send`](Self::send) below `/_matrix/client/v3`, with a JSON body; fails the test unless the
    /// answer is 200.
    pub(crate) fn ok(&self, method: &str, path: &str, who: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, who, body);
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// As [`ok`](Self::ok) for requests that are refused; returns status and errcode.
    pub(crate) fn refused(
        &self,
        method: &str,
        path: &str,
        who: &str,
        body: Value,
    ) -> (u16, String) {
        let (status, answer) = self.ask(method, path, who, body);
        assert!(answer["error"].is_string(), "{method} {path}: {status} {answer}");
        (status, answer["errcode"].as_str().unwrap_or_default().to_owned())
    }

    fn ask(&self, method: &str, path: &str, who: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, &format!("/_matrix/client/v3/{path}"), who, &body)
    }
}
