//! Looks users up in a directory that takes its time, and remembers what it was told.
//!
//! `cargo run --example cached_lookups anna bob anna`

use std::collections::HashMap;
use std::time::Duration;

use ropewalk::cache::{CacheOptions, CachedFunction, CachedList, Caches};
use ropewalk::{Deferred, Failure, Reactor};

/// The directory, with what is remembered of it.
pub(crate) struct Directory {
    pub(crate) caches: Caches,
    pub(crate) full_name: CachedFunction<String, Option<String>>,
    pub(crate) full_names: CachedList<String, String>,
    pub(crate) greeting: CachedFunction<String, String>,
}

pub(crate) fn open(reactor: &Reactor) -> Directory {
    let caches = Caches::new();
    let ask = |reactor: &Reactor, users: Vec<String>| {
        // In earnest this would be a query, in a thread or over a connection.
        println!("asking for {}", users.join(", "));
        reactor.defer_later(Duration::from_millis(100), move || {
            let known = users.into_iter().filter(|user| user != "nobody");
            Ok(known.map(|user| (user.clone(), format!("{user} of Ropewalk"))).collect())
        })
    };
    let handle = reactor.clone();
    let full_name =
        CachedFunction::new(CacheOptions::new("full_name", 1000).within(&caches), move |user| {
            ask(&handle, vec![user])
                .add_callback(|found: HashMap<String, String>| Ok(found.into_values().next()))
        });
    let handle = reactor.clone();
    let full_names = CachedList::of(&full_name, move |users| ask(&handle, users));
    let inner = full_name.clone();
    let options = CacheOptions::new("greeting", 1000).within(&caches);
    // Made of a full name, and forgotten with it.
    let greeting = CachedFunction::cascading(options, move |user: String, entry| {
        inner
            .call_for(user, entry)
            .add_callback(|name| Ok(format!("Hello, {}!", name.as_deref().unwrap_or("stranger"))))
    });
    Directory { caches, full_name, full_names, greeting }
}

pub(crate) fn greet(directory: &Directory, users: &[String]) -> Deferred<Vec<String>> {
    let greeting = directory.greeting.clone();
    let users = users.to_vec();
    // All names in one question; then each greeting finds its own.
    directory.full_names.call(users.clone()).add_callback(|_| {
        ropewalk::gather_results(users.into_iter().map(move |user| greeting.call(user)).collect())
    })
}

fn main() -> Result<(), Failure> {
    let users: Vec<String> = std::env::args().skip(1).collect();
    if users.is_empty() {
        eprintln!("usage: cached_lookups USER...");
    }
    let reactor = Reactor::new()?;
    let directory = open(&reactor);
    for _ in 0..2 {
        for greeting in reactor.run_until(greet(&directory, &users))? {
            println!("{greeting}");
        }
        // Somebody has told us that this one's name has changed.
        if let Some(user) = users.first() {
            directory.full_name.invalidate(user);
        }
    }
    for line in directory.caches.report() {
        println!("{}: {:?}", line.name, line.figures.statistics);
    }
    Ok(())
}
