//! The file system behind the reactor: the machine's and the one in memory do the same, and the latter can
//! lose power, fill up, fail and be slow.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use ropewalk::files::{FileError, FileKind, FileOperation, FileSystem, OpenMode};
use ropewalk::testing::{
    Clock, MemoryFileSystem, UnhandledErrors, assert_no_result, failure_result_of,
    success_result_of,
};
use ropewalk::{CancelledError, Deferred, Failure, Reactor};

fn done<T: 'static>(clock: &Clock, deferred: Deferred<T>) -> T {
    clock.pump();
    success_result_of(deferred)
}

fn failed<T: 'static>(clock: &Clock, deferred: Deferred<T>) -> Failure {
    clock.pump();
    failure_result_of(deferred)
}

fn kind(failure: &Failure) -> Option<io::ErrorKind> {
    failure.downcast_ref::<FileError>().expect("a file error").io_kind()
}

#[test]
fn files_are_written_read_listed_renamed_and_removed() {
    let clock = Clock::new();
    let files = clock.reactor().files();
    done(&clock, files.create_folder("a/b"));
    done(&clock, files.create_folder("a/b"));
    done(&clock, files.with_permissions(0o600).write_atomically("a/b/one", "1"));
    done(&clock, files.write_atomically("a/b/one", "one"));
    assert_eq!(done(&clock, files.read("/a/b/one", 3)), "one");
    let metadata = done(&clock, files.metadata("a/b/one"));
    assert_eq!((metadata.kind, metadata.length_bytes), (FileKind::File, 3));
    assert_eq!(metadata.modified, Some(clock.reactor().wall_clock()));
    done(&clock, files.rename("a/b/one", "a/two"));
    let names: Vec<_> = done(&clock, files.list("a"))
        .into_iter()
        .map(|entry| (entry.name.into_string().unwrap(), entry.kind))
        .collect();
    assert_eq!(names, [("b".into(), FileKind::Folder), ("two".into(), FileKind::File)]);
    done(&clock, files.remove_folder("a/b"));
    done(&clock, files.remove("a/two"));
    assert_eq!(clock.file_system().paths().len(), 0);
}

#[test]
fn errors_say_what_was_tried_with_what() {
    let clock = Clock::new();
    let files = clock.reactor().files();
    clock.file_system().write("folder/file", "12345");
    for (result, text) in [
        (failed(&clock, files.read("none", 9)), "cannot open none: entity not found"),
        (failed(&clock, files.read("folder", 9)), "cannot open folder: is a directory"),
        (failed(&clock, files.read("folder/file", 4)), "folder/file holds more than 4 bytes"),
        (
            failed(&clock, files.list("folder/file")),
            "cannot list folder folder/file: not a directory",
        ),
        (
            failed(&clock, files.remove_folder("folder")),
            "cannot remove folder folder: directory not empty",
        ),
        (failed(&clock, files.write_atomically("no/such", "")), "cannot open no/.such."),
    ] {
        let shown = format!("{result:#}");
        assert!(shown.starts_with(text), "{shown} instead of {text}");
    }
}

/// Does all kinds of things, and writes down what comes of them.
fn tour(system: &dyn FileSystem, root: &Path) -> Vec<String> {
    let at = |name: &str| root.join(name);
    let mut seen = Vec::new();
    let mut note = |what: &str, result: io::Result<String>| {
        let result = result.map_err(|error| error.kind());
        seen.push(format!("{what}: {result:?}"));
    };
    let done = |()| "done".to_owned();
    note("folder", system.create_folder(&at("a/b"), 0o755).map(done));
    note("folder again", system.create_folder(&at("a/b"), 0o755).map(done));
    note("open what is missing", system.open(&at("f"), OpenMode::Read, 0).map(|_| String::new()));
    let file = system.open(&at("f"), OpenMode::Append, 0o640).unwrap();
    note("append", file.append_all(b"hello").map(done));
    note("append", file.append_all(b" world").map(done));
    note("length", file.length().map(|length| length.to_string()));
    note("write in the middle", file.write_all_at(0, b"J").map(done));
    note("sync", file.sync().map(done));
    drop(file);
    let text = |name: &str| {
        system.read(&at(name), 100).map(|data| String::from_utf8_lossy(&data).into_owned())
    };
    let as_io = |error: FileError| io::Error::from(error.io_kind().unwrap_or(io::ErrorKind::Other));
    note("read", text("f").map_err(as_io));
    note("new but there", system.open(&at("f"), OpenMode::CreateNew, 0).map(|_| String::new()));
    let file = system.open(&at("f"), OpenMode::Update, 0o600).unwrap();
    note("update", file.write_all_at(0, b"J").map(done));
    note("behind the end", file.write_all_at(13, b"!").map(done));
    note("append in vain", file.append(b"x").map(|count| count.to_string()));
    note("cut", file.truncate(14).map(done));
    let mut buffer = [0; 5];
    note("read at", file.read_at(9, &mut buffer).map(|count| format!("{:?}", &buffer[..count])));
    note("read behind", file.read_at(99, &mut buffer).map(|count| count.to_string()));
    drop(file);
    note("permissions", system.metadata(&at("f")).map(|found| format!("{:o}", found.permissions)));
    let file = system.open(&at("f"), OpenMode::Create, 0o600).unwrap();
    note("emptied", file.length().map(|length| length.to_string()));
    note("read what is written", file.read_at(0, &mut buffer).map(|count| count.to_string()));
    note("rename", system.rename(&at("f"), &at("a/b/g")).map(done));
    note("still open", file.append_all(b"new").map(done));
    note("read", text("a/b/g").map_err(as_io));
    note("folder onto file", system.rename(&at("a/b"), &at("a/b/g")).map(done));
    note("folder into itself", system.rename(&at("a"), &at("a/b/c")).map(done));
    note("file as folder", system.create_folder(&at("a/b/g/h"), 0o755).map(done));
    note("through a file", system.metadata(&at("a/b/g/h")).map(|_| String::new()));
    note("remove folder", system.remove_folder(&at("a")).map(done));
    note("sync folder", system.sync_folder(&at("a/b")).map(done));
    note("list", system.list(&at("a"), 9).map(|entries| format!("{entries:?}")));
    note("remove", system.remove_file(&at("a/b/g")).map(done));
    note("remove again", system.remove_file(&at("a/b/g")).map(done));
    note("list", system.list(&at("a/b"), 9).map(|entries| format!("{entries:?}")));
    seen
}

#[test]
fn the_one_in_memory_does_what_the_machine_s_does() {
    let folder = tempfile::tempdir().unwrap();
    let real = tour(&*Reactor::new().unwrap().files().blocking(), folder.path());
    let memory = tour(&MemoryFileSystem::new(), Path::new("/"));
    assert_eq!(memory, real);
    assert!(memory.len() > 30);
}

#[test]
fn what_is_not_synced_goes_with_the_power() {
    let disk = MemoryFileSystem::new();
    let system: &dyn FileSystem = &disk;
    let path = Path::new;
    for folder in ["/kept", "/lost"] {
        system.create_folder(path(folder), 0o755).unwrap();
    }
    system.sync_folder(path("/")).unwrap();
    let write = |name: &str, synced: &[u8], unsynced: &[u8]| {
        let file = system.open(path(name), OpenMode::Append, 0o644).unwrap();
        file.append_all(synced).unwrap();
        file.sync().unwrap();
        file.append_all(unsynced).unwrap();
        file
    };
    let open = write("/kept/file", b"synced", b" and not");
    write("/kept/renamed", b"old name", b"");
    write("/kept/moved", b"old folder", b"");
    write("/kept/removed", b"still there", b"");
    write("/kept/overwritten", b"before", b"");
    system.sync_folder(path("/kept")).unwrap();
    write("/lost/file", b"synced but without a name", b"");
    system.rename(path("/kept/renamed"), path("/kept/new")).unwrap();
    system.rename(path("/kept/moved"), path("/lost/moved")).unwrap();
    system.remove_file(path("/kept/removed")).unwrap();
    let update = system.open(path("/kept/overwritten"), OpenMode::Update, 0).unwrap();
    update.write_all_at(0, b"AF").unwrap();
    system.create_folder(path("/new"), 0o755).unwrap();
    disk.lose_unsynced();
    let left: Vec<_> = disk
        .paths()
        .into_iter()
        .map(|path| {
            let contents = String::from_utf8(disk.read(&path).unwrap()).unwrap();
            format!("{} {contents}", path.display())
        })
        .collect();
    let expected = [
        "/kept/file synced",
        "/kept/moved old folder",
        "/kept/overwritten before",
        "/kept/removed still there",
        "/kept/renamed old name",
    ];
    assert_eq!(left, expected);
    assert!(system.metadata(path("/new")).is_err());
    assert!(open.append(b"from before").is_err(), "a file that was open is dead");
    assert!(open.sync().is_err());
}

#[test]
fn a_file_that_moves_between_folders_is_never_in_neither() {
    for synced in ["/from", "/to"] {
        let disk = MemoryFileSystem::new();
        let system: &dyn FileSystem = &disk;
        disk.write("/from/file", "contents");
        disk.write("/to/other", "");
        system.rename(Path::new("/from/file"), Path::new("/to/file")).unwrap();
        system.sync_folder(Path::new(synced)).unwrap();
        disk.lose_unsynced();
        let places = ["/from/file", "/to/file"].map(|path| disk.read(path).is_some());
        assert!(places.contains(&true), "synced {synced}: {places:?}");
    }
}

/// Writes over a file atomically, with the power lost before the operation of this number, and returns
/// whether the write was told to be done and what the file holds afterwards.
fn write_with_power_lost(before: usize, choose: &mut dyn FnMut(u64) -> u64) -> (bool, Vec<u8>) {
    let clock = Clock::new();
    let disk = clock.file_system().clone();
    disk.write("/state", "old");
    disk.set_write_bytes_max(Some(2));
    let count = Arc::new(AtomicUsize::new(0));
    let fault = disk.inject(move |_, _| match count.fetch_add(1, Ordering::Relaxed) < before {
        true => Ok(()),
        false => Err(io::Error::other("no power")),
    });
    let written = clock.reactor().files().write_atomically("/state", "new!");
    clock.pump();
    let is_done = written.into_result().ok().unwrap().is_ok();
    drop(fault);
    disk.lose_some_unsynced(choose);
    (is_done, disk.read("/state").expect("the file is there whatever happens"))
}

#[test]
fn an_atomic_write_leaves_the_old_or_the_new_wherever_the_power_goes() {
    let outcomes: Vec<_> = (0..9).map(|before| write_with_power_lost(before, &mut |_| 0)).collect();
    let news = outcomes.iter().filter(|(_, contents)| contents == b"new!").count();
    // Open, two writes, sync, rename, sync of the folder: only after the last one is it safe.
    assert_eq!(news, 3, "{outcomes:?}");
    for (is_done, contents) in outcomes {
        assert_eq!(contents, if is_done { &b"new!"[..] } else { b"old" });
    }
}

proptest! {
    #[test]
    fn an_atomic_write_holds_when_some_of_what_was_not_synced_survives(
        before in 0usize..9,
        choices in prop::collection::vec(any::<u64>(), 1..20),
    ) {
        let mut next = choices.iter().cycle();
        let mut choose = |n: u64| next.next().unwrap() % n.saturating_add(1).max(1);
        let (is_done, contents) = write_with_power_lost(before, &mut choose);
        prop_assert!(contents == b"new!" || (!is_done && contents == b"old"), "{contents:?}");
    }
}

#[test]
fn a_full_disk_fails_the_write_and_leaves_nothing_half_done() {
    let clock = Clock::new();
    let disk = clock.file_system();
    let files = clock.reactor().files();
    disk.write("state", "old");
    disk.set_capacity(Some(10));
    let failure = failed(&clock, files.write_atomically("state", "much too long"));
    assert_eq!(kind(&failure), Some(io::ErrorKind::StorageFull));
    assert_eq!(disk.paths(), [Path::new("/state")]);
    assert_eq!(disk.read("state").unwrap(), b"old");
    disk.set_capacity(None);
    done(&clock, files.write_atomically("state", "much too long"));
    assert_eq!(disk.read("state").unwrap(), b"much too long");
}

#[test]
fn a_fault_is_mended_when_its_guard_goes_even_by_a_panic() {
    let clock = Clock::new();
    let disk = clock.file_system().clone();
    let files = clock.reactor().files();
    let broken = {
        let disk = disk.clone();
        std::panic::catch_unwind(move || {
            let _fault = disk.inject(|operation, path| match operation {
                FileOperation::Metadata if path == Path::new("f") => {
                    Err(io::ErrorKind::PermissionDenied.into())
                }
                _ => Ok(()),
            });
            panic!("a test that fails");
        })
    };
    assert!(broken.is_err());
    disk.write("f", "fine");
    assert_eq!(done(&clock, files.metadata("f")).length_bytes, 4);
}

#[test]
fn a_slow_disk_takes_virtual_time_and_holds_nobody_up() {
    let clock = Clock::new();
    let disk = clock.file_system();
    disk.write("f", vec![b'x'; 1000]);
    disk.set_pace(|operation, bytes| match operation {
        FileOperation::Read => Duration::from_micros(bytes),
        _ => Duration::ZERO,
    });
    let read = clock.reactor().files().read("f", 1000);
    let timer = clock.reactor().call_later(Duration::from_micros(500), || {});
    clock.advance(Duration::from_micros(999));
    assert!(!timer.is_active());
    assert_no_result(&read);
    clock.advance(Duration::from_micros(1));
    assert_eq!(success_result_of(read).len(), 1000);
}

#[test]
fn operations_on_one_file_keep_their_order_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let reactor = Reactor::new().unwrap();
    let files = reactor.files();
    let text = reactor.spawn(async move {
        let file = files.open(&path, OpenMode::CreateNew).await?;
        assert_eq!(file.path(), path);
        let writes: Vec<_> = (0..100).map(|number| file.append(format!("{number}\n"))).collect();
        file.sync().await?;
        for write in writes {
            write.await?;
        }
        assert_eq!(file.length().await?, 290);
        drop(file);
        let file = files.open(&path, OpenMode::Read).await?;
        assert_eq!(file.read_at(20, 3).await?, "10\n");
        assert_eq!(file.read_at(288, 99).await?, "9\n");
        assert_eq!(file.read_at(290, 99).await?, "");
        let refused = file.append("x").await.unwrap_err();
        assert!(refused.is::<FileError>());
        files.read(&path, 1000).await
    });
    let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
    assert_eq!(reactor.run_until(text).unwrap(), expected);
}

#[test]
fn an_operation_that_waits_can_be_cancelled_and_the_next_goes_on() {
    let clock = Clock::new();
    let unhandled = UnhandledErrors::trap();
    let files = clock.reactor().files();
    let file = done(&clock, files.open("f", OpenMode::Update));
    clock.file_system().set_pace(|_, _| Duration::from_secs(1));
    let first = file.write_at(0, "aaaa");
    let second = file.write_at(0, "bb");
    let third = file.write_at(3, "c");
    clock.pump();
    second.cancel();
    assert!(failure_result_of(second).is::<CancelledError>());
    drop(file);
    clock.advance(Duration::from_secs(10));
    success_result_of(first);
    success_result_of(third);
    assert_eq!(clock.file_system().read("f").unwrap(), b"aaac");
    assert_eq!(unhandled.take().len(), 0);
    assert_eq!(clock.pending_calls(), 0);
}

#[test]
fn a_reactor_that_stops_fails_what_waits_for_the_disk() {
    let clock = Clock::new();
    clock.file_system().set_pace(|_, _| Duration::from_secs(1));
    let files = clock.reactor().files();
    let read = files.read("f", 1);
    clock.pump();
    drop(clock);
    assert!(failure_result_of(read).is::<ropewalk::ThreadPoolError>());
}
