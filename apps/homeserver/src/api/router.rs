//! The route table: from a path and a method to the endpoint that answers.
//!
//! Paths and methods are those of ruma's endpoint types and are not typed again. An endpoint is a
//! closure from a [`Call`] and the typed request to a typed response; the table adds what all
//! endpoints share: CORS, `M_UNRECOGNIZED` with 404 or 405, access tokens, body limits, and errors.

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use ropewalk::{Address, Failure, Reactor};
use ropewalk_http::{BodyError, Handler, HeaderBlock, Reply, Request, RequestHead, Response};
use ruma::api::error::ErrorKind;
use ruma::api::path_builder::PathBuilder;
use ruma::api::{IncomingRequest, IncomingRequestExt, OutgoingResponse, OutgoingResponseExt};

use super::auth::Authenticate;
use super::errors;
use crate::handlers::Refusal;
use crate::handlers::sessions::Sessions;

/// The longest JSON body, in bytes. Events end at 64 KiB, but one request may carry many of them
/// (`createRoom`'s `initial_state`) or messages to many devices.
pub(crate) const BODY_BYTES_MAX: u64 = 4 << 20;

/// Bodies over this many bytes are parsed in the thread pool, because parsing them would hold the
/// loop for longer than a millisecond.
const BODY_BYTES_ON_LOOP_MAX: usize = 64 << 10;

/// What an endpoint learns about a request besides its typed content.
pub(crate) struct Call<W> {
    /// The caller, as the endpoint's authentication found it.
    pub(crate) who: W,
    /// Where the connection comes from.
    pub(crate) peer: Address,
    /// Method, path and headers as they came.
    pub(crate) head: RequestHead,
    /// The body as it came, for endpoints that must see fields which their type drops.
    pub(crate) body: Bytes,
    arguments: Rc<[String]>,
}

impl<W> Call<W> {
    /// Returns a hole of the path, decoded, counted from zero; empty if there is none. Types of events
    /// must be read here, because ruma takes some of them for aliases of others.
    pub(crate) fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).map_or("", String::as_str)
    }

    /// Reads `body` as this endpoint's request again: user-interactive authentication replays the
    /// body of a session's first request.
    pub(crate) fn reparse<R: IncomingRequest>(&self, body: &[u8]) -> Result<R, Failure> {
        Ok(parse(&Raw::of(&self.head), body, &self.arguments)?)
    }
}

/// One endpoint: answers every request to its paths with its method.
trait Endpoint {
    fn answer(self: Rc<Self>, table: &Table, request: Request, arguments: Rc<[String]>) -> Reply;
}

/// What a path answers, by method.
type Methods = Vec<(Method, Rc<dyn Endpoint>)>;

/// Collects endpoints; [`finish`](Self::finish) makes the table.
pub(crate) struct Router {
    table: Table,
    paths: BTreeMap<String, Methods>,
}

/// What every endpoint needs.
#[derive(Clone)]
struct Table {
    reactor: Reactor,
    sessions: Rc<Sessions>,
    /// The lines that let web clients of any origin read the answer (Client-Server API, "Web Browser
    /// Clients"), spelt once.
    cors: HeaderBlock,
}

impl Router {
    /// Makes an empty router; callers are looked up in `sessions`.
    pub(crate) fn new(reactor: Reactor, sessions: Rc<Sessions>) -> Self {
        Self {
            table: Table { reactor, sessions, cors: HeaderBlock::new(CORS) },
            paths: BTreeMap::new(),
        }
    }

    /// Adds the endpoint of ruma's request type `R` at all of its paths.
    pub(crate) fn add<R, F, Fut>(&mut self, action: F)
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        F: Fn(Call<<R::Authentication as Authenticate>::Caller>, R) -> Fut + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse, Failure>> + 'static,
    {
        self.add_also_at(&[], action);
    }

    /// As [`add`](Self::add), and at further paths which ruma can read but does not name.
    pub(crate) fn add_also_at<R, F, Fut>(&mut self, paths: &[&'static str], action: F)
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        F: Fn(Call<<R::Authentication as Authenticate>::Caller>, R) -> Fut + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse, Failure>> + 'static,
    {
        let encode = encode::<R::OutgoingResponse>;
        self.insert(paths, Typed { action, encode, request: PhantomData });
    }

    /// Adds the endpoint of ruma's request type `R`, whose answer is finished JSON.
    pub(crate) fn add_json<R, F, Fut>(&mut self, action: F)
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        F: Fn(Call<<R::Authentication as Authenticate>::Caller>, R) -> Fut + 'static,
        Fut: Future<Output = Result<Bytes, Failure>> + 'static,
    {
        self.add_json_also_at(&[], action);
    }

    /// As [`add_json`](Self::add_json), and at further paths which ruma can read but does not name.
    pub(crate) fn add_json_also_at<R, F, Fut>(&mut self, paths: &[&'static str], action: F)
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        F: Fn(Call<<R::Authentication as Authenticate>::Caller>, R) -> Fut + 'static,
        Fut: Future<Output = Result<Bytes, Failure>> + 'static,
    {
        fn encode_json(body: Bytes) -> Result<Response, Failure> {
            Ok(errors::json(StatusCode::OK, body))
        }
        self.insert(paths, Typed { action, encode: encode_json, request: PhantomData });
    }

    /// Adds a fixed answer, made once.
    pub(crate) fn add_fixed(&mut self, path: &'static str, body: Bytes) {
        self.route(path, Method::GET, Rc::new(Fixed { body }));
    }

    /// Adds an endpoint that ruma has no type for; the closure gets the request's body.
    pub(crate) fn add_raw<F, Fut>(&mut self, method: Method, path: &'static str, action: F)
    where
        F: Fn(Call<()>) -> Fut + 'static,
        Fut: Future<Output = Result<Bytes, Failure>> + 'static,
    {
        self.route(path, method, Rc::new(Untyped { action }));
    }

    /// Makes the table that the HTTP server asks.
    ///
    /// # Errors
    ///
    /// Two routes that cannot stand beside each other: a mistake in this program.
    pub(crate) fn finish(self) -> Result<Routes, matchit::InsertError> {
        let mut paths = matchit::Router::new();
        for (path, endpoints) in self.paths {
            paths.insert(path, endpoints)?;
        }
        Ok(Routes { table: self.table, paths })
    }

    fn insert<R, F, Fut, Out>(&mut self, paths: &[&'static str], endpoint: Typed<R, F, Out>)
    where
        R: IncomingRequest + Send + 'static,
        R::Authentication: Authenticate,
        F: Fn(Call<<R::Authentication as Authenticate>::Caller>, R) -> Fut + 'static,
        Fut: Future<Output = Result<Out, Failure>> + 'static,
        Out: 'static,
    {
        let endpoint: Rc<dyn Endpoint> = Rc::new(endpoint);
        for path in R::PATH_BUILDER.all_paths().chain(paths.iter().copied()) {
            self.route(path, R::METHOD, endpoint.clone());
        }
    }

    fn route(&mut self, path: &str, method: Method, endpoint: Rc<dyn Endpoint>) {
        let at_path = self.paths.entry(numbered(path)).or_default();
        debug_assert!(at_path.iter().all(|(taken, _)| *taken != method), "{method} {path} twice");
        at_path.push((method, endpoint));
    }
}

/// Renames a path's holes by their order, so that two endpoints of one path agree on them.
fn numbered(path: &str) -> String {
    let mut holes = 0;
    let segments: Vec<String> = path
        .split('/')
        .map(|segment| {
            if segment.starts_with('{') {
                holes += 1;
                format!("{{p{holes}}}")
            } else {
                segment.to_owned()
            }
        })
        .collect();
    segments.join("/")
}

/// The finished route table.
pub(crate) struct Routes {
    table: Table,
    paths: matchit::Router<Methods>,
}

impl Handler for Routes {
    fn handle(&self, request: Request) -> Reply {
        // Preflight requests are answered for any path, without authentication and without effect.
        if request.head.method() == Method::OPTIONS {
            return self.table.now(Response::new(StatusCode::NO_CONTENT));
        }
        let Ok(found) = self.paths.at(request.head.path()) else {
            return self.unrecognized(StatusCode::NOT_FOUND);
        };
        let wanted = match *request.head.method() {
            Method::HEAD => &Method::GET,
            ref method => method,
        };
        let Some((_, endpoint)) = found.value.iter().find(|(method, _)| method == wanted) else {
            return self.unrecognized(StatusCode::METHOD_NOT_ALLOWED);
        };
        // Arguments are decoded after the path was split, so an encoded slash stays inside its own.
        let mut arguments = Vec::with_capacity(found.params.len());
        for (_, raw) in found.params.iter() {
            match percent_encoding::percent_decode_str(raw).decode_utf8() {
                Ok(text) => arguments.push(text.into_owned()),
                Err(_) => {
                    let refusal = Refusal::invalid_param("the path is not UTF-8");
                    return self.table.now(errors::refusal_response(&refusal));
                }
            }
        }
        let endpoint = endpoint.clone();
        endpoint.answer(&self.table, request, arguments.into())
    }

    fn refusal(&self, status: StatusCode, reason: &str) -> Response {
        let kind = match status {
            StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::TooLarge,
            _ => ErrorKind::Unknown,
        };
        errors::standard(status, &kind, reason).with_headers(&self.table.cors)
    }
}

impl Routes {
    fn unrecognized(&self, status: StatusCode) -> Reply {
        self.table.now(errors::standard(status, &ErrorKind::Unrecognized, "unrecognized request"))
    }
}

impl Table {
    fn now(&self, answer: Response) -> Reply {
        Reply::Now(answer.with_headers(&self.cors))
    }
}

const CORS: [(HeaderName, HeaderValue); 3] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS"),
    ),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization"),
    ),
];

/// Runs `work` as a task; its outcome, good or bad, becomes the answer.
fn reply(table: &Table, work: impl Future<Output = Result<Response, Failure>> + 'static) -> Reply {
    let cors = table.cors.clone();
    Reply::Later(table.reactor.spawn(async move {
        let answer = match work.await {
            Ok(response) => response,
            Err(failure) if failure.is::<ropewalk::CancelledError>() => return Err(failure),
            Err(failure) => errors::response(&failure),
        };
        Ok(answer.with_headers(&cors))
    }))
}

/// Collects a request's body.
async fn body_of(request: Request) -> Result<(RequestHead, Address, Bytes), Failure> {
    let Request { head, body, peer, .. } = request;
    let body = body.collect(BODY_BYTES_MAX).await.map_err(|failure| {
        match failure.downcast_ref::<BodyError>() {
            Some(BodyError::TooLarge { limit }) => {
                Refusal::too_large(format!("the body is over {limit} bytes")).into()
            }
            _ => failure,
        }
    })?;
    Ok((head, peer, body))
}

struct Fixed {
    body: Bytes,
}

impl Endpoint for Fixed {
    fn answer(self: Rc<Self>, table: &Table, _: Request, _: Rc<[String]>) -> Reply {
        table.now(errors::json(StatusCode::OK, self.body.clone()))
    }
}

struct Untyped<F> {
    action: F,
}

impl<F, Fut> Endpoint for Untyped<F>
where
    F: Fn(Call<()>) -> Fut + 'static,
    Fut: Future<Output = Result<Bytes, Failure>> + 'static,
{
    fn answer(self: Rc<Self>, table: &Table, request: Request, arguments: Rc<[String]>) -> Reply {
        reply(table, async move {
            let (head, peer, body) = body_of(request).await?;
            let answer = (self.action)(Call { who: (), peer, head, body, arguments }).await?;
            Ok(errors::json(StatusCode::OK, answer))
        })
    }
}

struct Typed<R, F, Out> {
    action: F,
    encode: fn(Out) -> Result<Response, Failure>,
    request: PhantomData<fn(R)>,
}

impl<R, F, Fut, Out> Endpoint for Typed<R, F, Out>
where
    R: IncomingRequest + Send + 'static,
    R::Authentication: Authenticate,
    F: Fn(Call<<R::Authentication as Authenticate>::Caller>, R) -> Fut + 'static,
    Fut: Future<Output = Result<Out, Failure>> + 'static,
    Out: 'static,
{
    fn answer(self: Rc<Self>, table: &Table, request: Request, arguments: Rc<[String]>) -> Reply {
        let Table { reactor, sessions, .. } = table.clone();
        reply(table, async move {
            let who = R::Authentication::authenticate(&sessions, &request.head).await?;
            let (head, peer, body) = body_of(request).await?;
            let raw = Raw::of(&head);
            let typed: R = if body.len() <= BODY_BYTES_ON_LOOP_MAX {
                parse(&raw, &body, &arguments)?
            } else {
                let (body, arguments) = (body.clone(), arguments.to_vec());
                reactor.defer_to_thread(move || parse(&raw, &body, &arguments)).await?
            };
            let call = Call { who, peer, head, body, arguments };
            (self.encode)((self.action)(call, typed).await?)
        })
    }
}

/// The parts of a request's head that ruma's parsers read. Can go to another thread.
struct Raw {
    method: Method,
    target: Bytes,
    content_type: Option<Bytes>,
}

impl Raw {
    fn of(head: &RequestHead) -> Self {
        Self {
            method: head.method().clone(),
            target: Bytes::copy_from_slice(head.target().as_bytes()),
            content_type: head.header("content-type").map(Bytes::copy_from_slice),
        }
    }
}

/// Reads a request as its endpoint's type.
fn parse<R: IncomingRequest>(raw: &Raw, body: &[u8], arguments: &[String]) -> Result<R, Refusal> {
    let uri = http::Uri::from_maybe_shared(raw.target.clone())
        .map_err(|error| Refusal::invalid_param(format!("request target: {error}")))?;
    let mut request = http::Request::builder().method(raw.method.clone()).uri(uri);
    if let Some(content_type) = &raw.content_type {
        request = request.header(http::header::CONTENT_TYPE, &content_type[..]);
    }
    // Clients join and leave with and without an empty object; ruma wants it for some endpoints.
    let body = if body.is_empty() && raw.method == Method::POST { b"{}" } else { body };
    let request = request
        .body(body)
        .map_err(|error| Refusal::invalid_param(format!("request head: {error}")))?;
    // Endpoints have three arguments at most, `send` and `state` among them.
    let arguments: smallvec::SmallVec<[&str; 4]> = arguments.iter().map(String::as_str).collect();
    R::try_from_http_request(request, &arguments).map_err(|error| errors::refuse_request(&error))
}

/// Writes a typed response.
fn encode<T: OutgoingResponse>(response: T) -> Result<Response, Failure> {
    let (parts, body) = response.try_into_http_response::<Vec<u8>>()?.into_parts();
    let mut answer = Response::new(parts.status);
    for (name, value) in &parts.headers {
        answer = answer.header(name.clone(), value.clone());
    }
    Ok(answer.with_body(body))
}
