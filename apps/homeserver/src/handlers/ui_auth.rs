//! User-interactive authentication: a dialogue of stages in front of a request that matters.
//!
//! A session belongs to the request that it was begun for: method, path and user. Sessions are in
//! memory only: they hold the first request's body, passwords included, which have no business in a
//! database, and a client whose session is gone just begins another.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ropewalk::cache::LruCache;
use ropewalk::{Failure, Instant, Reactor};
use ruma::api::client::uiaa::{AuthData, AuthFlow, AuthType, UiaaInfo};
use ruma::api::error::{ErrorKind, StandardErrorBody};
use ruma::{OwnedUserId, UserId};
use zeroize::Zeroizing;

use super::Refusal;
use crate::config::secrets::random_letters;

/// How long a session lasts: time to read the terms of service and to look for a token in the mail.
const SESSION_LIFETIME: Duration = Duration::from_secs(3600);

/// How many bytes all sessions may hold. Whoever begins more pushes out the oldest ones, and is
/// limited by the limits on registration and login.
const SESSIONS_BYTES_MAX: usize = 16 << 20;

/// The longest body that is kept for a session.
const BODY_BYTES_MAX: usize = 64 << 10;

/// What one session costs besides its texts.
const SESSION_BYTES: usize = 300;

/// The request that wants authentication.
#[derive(Clone, Debug)]
pub struct Guarded<'r> {
    /// Its method.
    pub method: &'r str,
    /// Its path.
    pub path: &'r str,
    /// Its body as it came.
    pub body: &'r Bytes,
    /// Who asks, if that is known before.
    pub user_id: Option<&'r UserId>,
}

/// What the stages have established.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Established {
    /// The registration token that was shown.
    pub registration_token: Option<String>,
}

/// What comes out of a finished dialogue.
#[derive(Debug)]
pub struct Passed {
    /// What the stages have established.
    pub established: Established,
    /// The body of the session's first request, if this one came with nothing but `auth`.
    pub body: Option<Bytes>,
}

/// How a stage went.
#[derive(Debug)]
pub enum StageOutcome {
    /// The client failed; the text is for people.
    Failed(ErrorKind, String),
    /// The client passed.
    Passed(Established),
}

/// Checks the stages that are more than a formality.
pub trait StageChecker {
    /// Checks what the client sent for one stage. Dummy stages never come here.
    fn check(
        &self,
        auth: &AuthData,
        user_id: Option<&UserId>,
    ) -> impl Future<Output = Result<StageOutcome, Failure>>;
}

/// One dialogue.
#[derive(Clone, Debug)]
struct Session {
    began_at: Instant,
    method: String,
    path: String,
    user_id: Option<OwnedUserId>,
    body: Bytes,
    completed: Vec<AuthType>,
    established: Established,
}

/// All dialogues that go on.
#[derive(Clone)]
pub struct UiAuth {
    reactor: Reactor,
    sessions: Rc<LruCache<String, Rc<Session>>>,
}

impl UiAuth {
    /// Starts without sessions.
    pub fn new(reactor: Reactor) -> Self {
        let size_of =
            |session: &Rc<Session>| SESSION_BYTES + session.body.len() + session.path.len();
        Self { reactor, sessions: Rc::new(LruCache::with_size(SESSIONS_BYTES_MAX, size_of)) }
    }

    /// Goes one step in the dialogue about `request`; returns when it is finished.
    ///
    /// # Errors
    ///
    /// [`Refusal::UserInteractive`] as long as stages are left or one has failed, `M_FORBIDDEN` if
    /// the session was begun for another request, `M_UNKNOWN` if there is no such session (any
    /// more).
    pub async fn authenticate(
        &self,
        request: Guarded<'_>,
        flows: &[Vec<AuthType>],
        auth: Option<&AuthData>,
        checker: &impl StageChecker,
    ) -> Result<Passed, Failure> {
        let Some(auth) = auth else {
            return Err(self.begin(&request)?.ask(flows, None).into());
        };
        let mut dialogue = match auth.session() {
            Some(session_id) => self.resume(session_id, &request)?,
            None => self.begin(&request)?,
        };
        let Some(stage) = auth.auth_type() else {
            // Nothing but the session: the client wants to know how far it has come.
            return self.conclude(dialogue, flows, &request);
        };
        if !flows.iter().any(|flow| flow.contains(&stage)) {
            let message = format!("the stage {} is not part of any flow", stage.as_str());
            return Err(dialogue.ask(flows, Some((ErrorKind::Unrecognized, message))).into());
        }
        let outcome = match stage {
            AuthType::Dummy => StageOutcome::Passed(Established::default()),
            _ => checker.check(auth, request.user_id).await?,
        };
        match outcome {
            StageOutcome::Failed(kind, message) => {
                Err(dialogue.ask(flows, Some((kind, message))).into())
            }
            StageOutcome::Passed(established) => {
                let session = Rc::make_mut(&mut dialogue.session);
                if !session.completed.contains(&stage) {
                    session.completed.push(stage);
                }
                if established.registration_token.is_some() {
                    session.established.registration_token = established.registration_token;
                }
                self.sessions.insert(dialogue.session_id.clone(), dialogue.session.clone());
                self.conclude(dialogue, flows, &request)
            }
        }
    }

    fn begin(&self, request: &Guarded<'_>) -> Result<Dialogue, Refusal> {
        if request.body.len() > BODY_BYTES_MAX {
            return Err(Refusal::too_large(format!("the body is over {BODY_BYTES_MAX} bytes")));
        }
        let name = random_letters(24, &mut |buffer| self.reactor.random_bytes(buffer));
        let session = Rc::new(Session {
            began_at: self.reactor.now(),
            method: request.method.to_owned(),
            path: request.path.to_owned(),
            user_id: request.user_id.map(OwnedUserId::from),
            body: request.body.clone(),
            completed: Vec::new(),
            established: Established::default(),
        });
        self.sessions.insert(name.to_string(), session.clone());
        Ok(Dialogue { session_id: name.to_string(), session })
    }

    fn resume(&self, session_id: &str, request: &Guarded<'_>) -> Result<Dialogue, Refusal> {
        let now = self.reactor.now();
        let session = self
            .sessions
            .get(&session_id.to_owned())
            .filter(|session| now.since(session.began_at) < SESSION_LIFETIME)
            .ok_or_else(|| {
                let message = "unknown authentication session; begin again without `auth`";
                Refusal::new(ErrorKind::Unknown, message)
            })?;
        let same = session.method == request.method
            && session.path == request.path
            && session.user_id.as_deref() == request.user_id;
        if !same {
            return Err(Refusal::forbidden(
                "the authentication session was begun for another request",
            ));
        }
        Ok(Dialogue { session_id: session_id.to_owned(), session })
    }

    /// Ends the dialogue if a flow is complete.
    fn conclude(
        &self,
        dialogue: Dialogue,
        flows: &[Vec<AuthType>],
        request: &Guarded<'_>,
    ) -> Result<Passed, Failure> {
        let completed = &dialogue.session.completed;
        let finished = flows.iter().any(|flow| flow.iter().all(|stage| completed.contains(stage)));
        if !finished {
            return Err(dialogue.ask(flows, None).into());
        }
        // One dialogue opens one request.
        self.sessions.remove(&dialogue.session_id);
        let body = has_nothing_but_auth(request.body).then(|| dialogue.session.body.clone());
        Ok(Passed { established: dialogue.session.established.clone(), body })
    }
}

/// A session on its way through one request.
struct Dialogue {
    session_id: String,
    session: Rc<Session>,
}

impl Dialogue {
    /// Tells the client what is left to do.
    fn ask(self, flows: &[Vec<AuthType>], error: Option<(ErrorKind, String)>) -> Refusal {
        let mut info = UiaaInfo::new(flows.iter().cloned().map(AuthFlow::new).collect());
        // Clients expect the object even where no stage has anything to say.
        info.params = serde_json::value::to_raw_value(&serde_json::json!({})).ok();
        info.completed = self.session.completed.clone();
        info.session = Some(self.session_id);
        info.auth_error =
            error.map(|(kind, message)| Box::new(StandardErrorBody::new(kind, message)));
        Refusal::UserInteractive(Box::new(info))
    }
}

/// Returns whether a body says nothing besides `auth`, so that the first one's words count.
fn has_nothing_but_auth(body: &[u8]) -> bool {
    let parsed: Result<serde_json::Map<String, serde_json::Value>, _> =
        serde_json::from_slice(body);
    parsed.is_ok_and(|object| object.keys().all(|key| key == "auth"))
}

/// Returns the password of a stage, to be wiped after use.
pub fn password_of(auth: &AuthData) -> Option<Zeroizing<String>> {
    match auth {
        AuthData::Password(stage) => Some(Zeroizing::new(stage.password.clone())),
        _ => None,
    }
}
