//! A server that writes down what it is told and a client that tells it until it is believed, in a world
//! where everything goes wrong.

use std::cell::RefCell;
use std::rc::Rc;

use http::{Method, StatusCode};
use ropewalk::files::OpenMode;
use ropewalk::sim::{self, Faults, Leftover, World, WorldOptions};
use ropewalk::{Failure, ListenOptions, Reactor};
use ropewalk_http::{
    ClientOptions, ClientRequest, HttpClient, HttpFactory, Limits, Reply, Request, Response,
};

use crate::support::SECOND;

/// Answers once what it was told is safe.
fn serve(reactor: &Reactor, address: std::net::SocketAddr) {
    let handle = {
        let reactor = reactor.clone();
        move |request: Request| -> Reply {
            let files = reactor.files();
            let response = reactor.spawn(async move {
                let line = request.body.collect(100).await?;
                let log = files.open("/log", OpenMode::Append).await?;
                log.append(line).await?;
                log.sync().await?;
                Ok(Response::text(StatusCode::OK, "written"))
            });
            response.into()
        }
    };
    let factory = HttpFactory::new(reactor, Rc::new(handle), Limits::default());
    reactor.listen_tcp(address, Rc::new(factory), ListenOptions::default()).unwrap();
}

/// Returns whether it was told that the line is safe.
async fn tell(client: &HttpClient, line: &str) -> Result<bool, Failure> {
    let request = ClientRequest::new(Method::POST, "server", "/log")?;
    let response = client.request(request.with_body(line.to_owned())).await?;
    let is_ok = response.head.status() == StatusCode::OK;
    Ok(response.body.collect(100).await? == "written" && is_ok)
}

fn scenario(world: &World) {
    let (server, teller) = (world.host("server"), world.host("teller"));
    server.file_system().write("/log", "");
    let address = server.at(80);
    server.run(move |reactor, _| serve(reactor, address));
    // It remembers what it was told; the server has to.
    teller.spare();
    let believed: Rc<RefCell<Vec<String>>> = Rc::default();
    let list = Rc::clone(&believed);
    teller.run(move |reactor, _| {
        let options = ClientOptions { response_timeout: 10 * SECOND, ..ClientOptions::default() };
        let client = HttpClient::new(reactor, address, options);
        let (handle, list) = (reactor.clone(), Rc::clone(&list));
        drop(reactor.spawn(async move {
            for number in 0..30 {
                let line = format!("line {number}\n");
                while !tell(&client, &line).await.unwrap_or(false) {
                    handle.defer_later(SECOND, || Ok(())).await?;
                }
                list.borrow_mut().push(line);
                handle.defer_later(5 * SECOND, || Ok(())).await?;
            }
            Ok(())
        }));
    });
    world.run_for(300 * SECOND);
    world.calm();
    world.run_until(|| believed.borrow().len() == 30, 900 * SECOND);
    // The last pause of the teller.
    world.run_for(5 * SECOND);
    server.power_off();
    server.file_system().lose_unsynced();
    let log = String::from_utf8(server.file_system().read("/log").unwrap()).unwrap();
    for line in &*believed.borrow() {
        assert!(log.contains(line.as_str()), "{line:?} was acknowledged and is not in {log:?}");
    }
    // Idle connections of the client's pool, and their time limits.
    world.tolerate(Leftover::Connections);
    world.tolerate(Leftover::Timers);
    // Requests whose client has gone.
    world.tolerate(Leftover::UnhandledFailures);
}

#[test]
fn what_was_acknowledged_is_there_whatever_happens() {
    let options = WorldOptions { faults: Faults::harsh(), ..WorldOptions::default() };
    sim::check_with("lines over HTTP", &options, scenario);
}

#[test]
fn requests_over_a_failing_network_take_the_same_course_twice() {
    let options = WorldOptions { faults: Faults::harsh(), ..WorldOptions::default() };
    for seed in 100..103 {
        let first = sim::run_seed(seed, &options, scenario);
        assert_eq!(sim::run_seed(seed, &options, scenario), first);
    }
}
