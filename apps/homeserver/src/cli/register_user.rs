//! `homeserver register-user`: an account on the server that runs, whatever its registration rules.

use std::io::{self, BufRead as _, IsTerminal as _, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, StatusCode, header};
use ropewalk::{Failure, Reactor};
use ropewalk_http::{ClientOptions, ClientRequest, HttpClient};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::{CliError, ConfigArgument, print, tell, with_causes};
use crate::api::ADMIN_REGISTER_PATH;
use crate::config::listen::HttpListener;
use crate::config::{Config, Secret, secrets};
use crate::handlers::admin_registration::MacParts;

/// What `register-user` is told.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  homeserver register-user alice
  homeserver register-user --config /etc/ropewalk/homeserver.toml --admin alice
  homeserver register-user --password-file password.txt bob")]
pub(super) struct RegisterUserArguments {
    /// The name before the colon of the new user id, such as alice.
    #[arg(value_name = "NAME")]
    name: String,
    /// Let the account administer the server.
    #[arg(long)]
    admin: bool,
    /// Read the password from a file's first line instead of the terminal; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Where the server is, if not where the configuration says: http://host:port.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    config: ConfigArgument,
}

/// How long the server may take; hashing the password is the longest part of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer worth reading.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// The longest password file worth reading.
const PASSWORD_FILE_BYTES_MAX: u64 = 4096;

pub(super) fn run(arguments: &RegisterUserArguments) -> Result<(), CliError> {
    let config = arguments.config.load()?;
    let server = server(arguments.url.as_deref(), &config.listen.http)?;
    let secret = shared_secret(&config)?;
    let password = read_password(arguments.password_file.as_deref())?;
    let reactor = Reactor::new()
        .map_err(|error| CliError::could_not(format!("cannot set up the event loop: {error}")))?;
    let account = NewAccount { name: arguments.name.clone(), password, admin: arguments.admin };
    let exchange = exchange(reactor.clone(), server.clone(), secret, account);
    let outcome = reactor
        .run_until(reactor.spawn(exchange))
        .map_err(|failure| unreachable_server(&server, &failure))?;
    match outcome {
        Outcome::Made(user_id) => print(&format!("{user_id}\n")),
        Outcome::Refused(refusal) => Err(refused(&refusal)),
        Outcome::Unintelligible(status) => Err(CliError::could_not(format!(
            "{} answered with status {status}, which is no answer of a homeserver",
            server.host
        ))
        .with_hint("name the right address with --url")),
    }
}

/// Where the server is.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Server {
    address: SocketAddr,
    /// What the `Host` field says.
    host: String,
}

/// The account to make.
struct NewAccount {
    name: String,
    password: Zeroizing<String>,
    admin: bool,
}

/// What came of it.
enum Outcome {
    Made(String),
    Refused(MatrixError),
    /// The answer is not one of this endpoint.
    Unintelligible(StatusCode),
}

#[derive(Debug, Deserialize)]
struct MatrixError {
    errcode: String,
    error: String,
}

#[derive(Deserialize)]
struct Nonce {
    nonce: String,
}

#[derive(Deserialize)]
struct Registered {
    user_id: String,
}

/// Asks for a nonce, and for the account.
async fn exchange(
    reactor: Reactor,
    server: Server,
    secret: Secret,
    account: NewAccount,
) -> Result<Outcome, Failure> {
    let options = ClientOptions { response_timeout: ANSWER_TIMEOUT, ..ClientOptions::default() };
    let client = HttpClient::new(&reactor, server.address, options);
    let question = ClientRequest::new(Method::GET, &server.host, ADMIN_REGISTER_PATH)?;
    let (status, body) = answer(&client, question).await?;
    let Ok(Nonce { nonce }) = serde_json::from_slice(&body) else {
        return Ok(no_success(status, &body));
    };
    let parts = MacParts {
        nonce: &nonce,
        username: &account.name,
        password: &account.password,
        admin: account.admin,
        user_type: None,
    };
    let request = serde_json::json!({
        "nonce": nonce,
        "username": account.name,
        "password": *account.password,
        "admin": account.admin,
        "mac": parts.sign(&secret),
        "inhibit_login": true,
    });
    let request = ClientRequest::new(Method::POST, &server.host, ADMIN_REGISTER_PATH)?
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .with_body(request.to_string());
    let (status, body) = answer(&client, request).await?;
    Ok(match serde_json::from_slice(&body) {
        Ok(Registered { user_id }) if status.is_success() => Outcome::Made(user_id),
        _ => no_success(status, &body),
    })
}

async fn answer(
    client: &HttpClient,
    request: ClientRequest,
) -> Result<(StatusCode, Bytes), Failure> {
    let response = client.request(request).await?;
    let status = response.head.status();
    Ok((status, response.body.collect(ANSWER_BYTES_MAX).await?))
}

fn no_success(status: StatusCode, body: &[u8]) -> Outcome {
    serde_json::from_slice(body).map_or(Outcome::Unintelligible(status), Outcome::Refused)
}

fn refused(refusal: &MatrixError) -> CliError {
    let error = CliError::could_not(format!("{} ({})", refusal.error, refusal.errcode));
    match refusal.errcode.as_str() {
        "M_FORBIDDEN" => error.with_hint("is --config the configuration of the server that runs?"),
        "M_USER_IN_USE" => error.with_hint("choose another name"),
        "M_UNRECOGNIZED" => error.with_hint("name the homeserver's own address with --url"),
        _ => error,
    }
}

fn unreachable_server(server: &Server, failure: &Failure) -> CliError {
    let message = format!("cannot talk to the server at http://{}: {failure}", server.host);
    CliError::could_not(message)
        .with_hint("start it with `homeserver`, or say where it is with --url")
}

fn shared_secret(config: &Config) -> Result<Secret, CliError> {
    secrets::existing_registration_secret(&config.registration, &config.paths)?.ok_or_else(|| {
        let message = format!("there is no {}", config.paths.shared_secret.display());
        CliError::could_not(message).with_hint(
            "the server makes it at its first start: start it, or name its configuration with --config",
        )
    })
}

/// Returns where the server is: what the user says, or where the configuration has it listen.
fn server(url: Option<&str>, listen: &HttpListener) -> Result<Server, CliError> {
    let host = match url {
        Some(url) => host_of_url(url)?,
        None => listening_host(listen),
    };
    let with_port = match host.parse::<http::uri::Authority>().ok().and_then(|a| a.port_u16()) {
        Some(_) => host.clone(),
        None => format!("{host}:80"),
    };
    let found = with_port.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    let address = found.ok_or_else(|| {
        CliError::could_not(format!("cannot find the host {host:?}"))
            .with_hint("say where the server is with --url http://127.0.0.1:8008")
    })?;
    Ok(Server { address, host })
}

fn host_of_url(url: &str) -> Result<String, CliError> {
    let wrong = |why: &str| {
        CliError::asked_wrongly(format!("--url {url:?} {why}"))
            .with_hint("for example --url http://127.0.0.1:8008")
    };
    let parsed = http::Uri::try_from(url).map_err(|_| wrong("is not an address"))?;
    let authority = parsed.authority().map(ToString::to_string).unwrap_or_default();
    match parsed.scheme_str() {
        Some("http") if !authority.is_empty() => Ok(authority),
        Some("https") => Err(wrong("asks for TLS; use the server's plain listener")),
        _ => Err(wrong("does not start with http://")),
    }
}

/// Whoever listens everywhere is reached on loopback.
fn listening_host(listen: &HttpListener) -> String {
    let bare = listen.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match bare.unwrap_or(&listen.host).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => listen.host.clone(),
    };
    format!("{host}:{}", listen.port)
}

/// Returns the password: from a file, from the terminal without showing it, or from a pipe.
fn read_password(file: Option<&Path>) -> Result<Zeroizing<String>, CliError> {
    let password = match file {
        Some(path) if path != Path::new("-") => {
            let opened = std::fs::File::open(path).and_then(first_line);
            opened.map_err(|error| {
                CliError::could_not(format!("cannot read {}: {error}", path.display()))
            })?
        }
        None if io::stdin().is_terminal() => ask_twice()?,
        _ => first_line(io::stdin().lock()).map_err(|error| {
            CliError::could_not(format!("cannot read the password from stdin: {error}"))
        })?,
    };
    if password.is_empty() {
        return Err(CliError::asked_wrongly("the password is empty"));
    }
    Ok(password)
}

fn first_line(reader: impl Read) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    io::BufReader::new(reader.take(PASSWORD_FILE_BYTES_MAX)).read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn ask_twice() -> Result<Zeroizing<String>, CliError> {
    let ask = |question: &str| {
        tell(question);
        rpassword::read_password().map(Zeroizing::new).map_err(|error| {
            CliError::could_not(format!("cannot read the password: {}", with_causes(&error)))
                .with_hint("give it in a file with --password-file")
        })
    };
    let password = ask("Password: ")?;
    if password != ask("Once more: ")? {
        return Err(CliError::could_not("the two passwords differ"));
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_found_where_it_listens() {
        for (host, expected) in [
            ("127.0.0.1", "127.0.0.1:8008"),
            ("0.0.0.0", "127.0.0.1:8008"),
            ("::", "[::1]:8008"),
            ("[::]", "[::1]:8008"),
            ("2001:db8::1", "[2001:db8::1]:8008"),
            ("localhost", "localhost:8008"),
        ] {
            let listen = HttpListener { host: host.to_owned(), port: 8008 };
            assert_eq!(listening_host(&listen), expected);
        }
    }

    #[test]
    fn an_address_says_where_else() {
        for (url, expected) in [
            ("http://127.0.0.1:8009", Some("127.0.0.1:8009")),
            ("http://127.0.0.1", Some("127.0.0.1")),
            ("http://[::1]:8008/", Some("[::1]:8008")),
            ("https://127.0.0.1:8448", None),
            ("127.0.0.1:8008", None),
            ("ftp://x", None),
            ("", None),
        ] {
            assert_eq!(host_of_url(url).ok().as_deref(), expected, "{url}");
        }
        let listen = HttpListener::default();
        let at_port_80 = server(Some("http://127.0.0.1"), &listen).expect("an address");
        assert_eq!(at_port_80.address.port(), 80);
        assert_eq!(at_port_80.host, "127.0.0.1");
    }

    #[test]
    fn a_password_is_the_first_line() {
        for (text, expected) in
            [("secret\n", "secret"), ("a b \r\nrest", "a b "), ("x", "x"), ("", "")]
        {
            assert_eq!(first_line(text.as_bytes()).expect("read").as_str(), expected);
        }
    }
}
