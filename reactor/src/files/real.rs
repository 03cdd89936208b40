//! The machine's file system.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use super::system::{Entry, FileKind, FileSystem, Metadata, OpenFile, OpenMode};

/// The file system of the machine, through the standard library.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RealFileSystem;

impl FileSystem for RealFileSystem {
    fn open(&self, path: &Path, mode: OpenMode, permissions: u32) -> io::Result<Arc<dyn OpenFile>> {
        let mut options = fs::OpenOptions::new();
        options.mode(permissions);
        match mode {
            OpenMode::Append | OpenMode::Create => options.append(true).create(true),
            OpenMode::CreateNew => options.append(true).create_new(true),
            OpenMode::Read => options.read(true),
            OpenMode::Update => options.read(true).write(true).create(true).truncate(false),
        };
        let file = options.open(path)?;
        if mode == OpenMode::Create {
            // The standard library refuses to open for appending and truncate at once.
            file.set_len(0)?;
        }
        Ok(Arc::new(RealFile { file, mode }))
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let found = fs::metadata(path)?;
        let mut metadata =
            Metadata::new(kind(found.file_type()), found.len(), found.permissions().mode());
        metadata.modified = found.modified().ok();
        Ok(metadata)
    }

    fn list(&self, folder: &Path, entries_max: usize) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)?.take(entries_max.saturating_add(1)) {
            let entry = entry?;
            entries.push(Entry::new(entry.file_name(), kind(entry.file_type()?)));
        }
        entries.sort();
        Ok(entries)
    }

    fn create_folder(&self, path: &Path, permissions: u32) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(permissions).create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile {
    file: fs::File,
    mode: OpenMode,
}

impl OpenFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.mode.check_reads()?;
        self.file.read_at(buffer, offset)
    }

    fn append(&self, data: &[u8]) -> io::Result<usize> {
        // It would write at a cursor that nobody has moved.
        self.mode.check_appends()?;
        (&self.file).write(data)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        // Linux appends to a file that was opened for appending, whatever the offset.
        self.mode.check_updates()?;
        self.file.write_at(data, offset)
    }

    fn truncate(&self, length_bytes: u64) -> io::Result<()> {
        self.file.set_len(length_bytes)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn system_file(&self) -> Option<&fs::File> {
        Some(&self.file)
    }
}

fn kind(file_type: fs::FileType) -> FileKind {
    if file_type.is_file() {
        FileKind::File
    } else if file_type.is_dir() {
        FileKind::Folder
    } else {
        FileKind::Other
    }
}
