//! The files of a log: `log.json`, and `log.json.1` and so on, which are older and may be packed (`.gz`).
//!
//! The shim renames and deletes them at any moment. While somebody has the folder's lock (flock) it does not; and never
//! does it delete a file, or one behind that, on which a reader has a lock. So a reader locks the file that it is in,
//! and goes to the next one under the folder's lock. The shim waits for no lock: it lets its file grow meanwhile.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};

use super::FILE_NAME;

/// Who has the lock has it for microseconds, unless it was stopped.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(1);
pub(super) const BLOCK_BYTES: usize = 64 << 10;
/// A chunk of 16 KiB, each byte escaped as six, the attributes and the rest of the line; what is longer was not written
/// by us.
pub(super) const LINE_MAX_BYTES: usize = 512 << 10;

/// Nobody renames or deletes files of a folder while this lives.
pub(super) struct Still(#[expect(dead_code, reason = "held for its drop")] Option<Flock<File>>);

impl Still {
    pub(super) fn shared(folder: &Path) -> io::Result<Still> {
        Still::take(folder, FlockArg::LockSharedNonblock)
    }

    pub(super) fn exclusive(folder: &Path) -> io::Result<Still> {
        Still::take(folder, FlockArg::LockExclusiveNonblock)
    }

    fn take(folder: &Path, how: FlockArg) -> io::Result<Still> {
        let mut file = match File::open(folder) {
            // There is nothing in it to be renamed.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Still(None)),
            opened => opened?,
        };
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(Still(Some(lock))),
                Err((back, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
                Err((_, error)) => return Err(error.into()),
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }
}

/// One file, open and held.
pub(super) struct LogFile {
    reader: Reader,
}

enum Reader {
    Plain {
        file: File,
        /// Where the next line begins.
        at: u64,
    },
    Packed(Box<MultiGzDecoder<File>>),
}

impl LogFile {
    fn file(&self) -> &File {
        match &self.reader {
            Reader::Plain { file, .. } => file,
            Reader::Packed(decoder) => decoder.get_ref(),
        }
    }

    /// It can be read from its beginning alone.
    pub(super) fn is_packed(&self) -> bool {
        matches!(self.reader, Reader::Packed(_))
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file().metadata()?.len())
    }

    pub(super) fn identity(&self) -> io::Result<(u64, u64)> {
        let metadata = self.file().metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// When it was last written to, in nanoseconds since 1970.
    pub(super) fn changed_unix_nanos(&self) -> io::Result<i64> {
        let metadata = self.file().metadata()?;
        Ok(metadata
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(metadata.mtime_nsec()))
    }

    /// The shim may delete it from now on.
    pub(super) fn let_go(&self) {
        let _ = lock(self.file(), libc::F_UNLCK);
    }

    /// Read from `offset` on; of a packed file there is only the beginning.
    pub(super) fn seek(&mut self, offset: u64) -> io::Result<()> {
        match &mut self.reader {
            Reader::Plain { at, .. } => *at = offset,
            Reader::Packed(decoder) => {
                let mut file = decoder.get_ref().try_clone()?;
                file.rewind()?;
                // The lock is that of the open file, which both descriptors are of.
                self.reader = Reader::Packed(Box::new(MultiGzDecoder::new(file)));
            }
        }
        Ok(())
    }

    /// A block of a plain file, from anywhere.
    pub(super) fn read_exact_at(&self, block: &mut [u8], offset: u64) -> io::Result<()> {
        self.file().read_exact_at(block, offset)
    }

    /// Read on into `block`; how many bytes. 0: there is nothing more yet. Of a plain file they are whole lines: the
    /// beginning of a line is read again when more of it may be there, as the shim takes back what a full disk has let
    /// it write of one, and writes another in its place.
    pub(super) fn read_on(&mut self, block: &mut Vec<u8>) -> io::Result<usize> {
        let (file, at) = match &mut self.reader {
            Reader::Packed(decoder) => return decoder.read(block),
            Reader::Plain { file, at } => (file, at),
        };
        loop {
            let length = file.read_at(block, *at)?;
            if let Some(end) = block[..length].iter().rposition(|&byte| byte == b'\n') {
                *at += end as u64 + 1;
                return Ok(end + 1);
            }
            if length < block.len() {
                // Never in the middle of a line, wherever it ends now.
                *at = file.metadata()?.len().min(*at);
                return Ok(0);
            }
            if length < LINE_MAX_BYTES {
                block.resize(length * 2, 0);
            } else {
                *at += length as u64;
            }
        }
    }
}

impl Read for LogFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.reader {
            Reader::Plain { file, at } => {
                let length = file.read_at(buffer, *at)?;
                *at += length as u64;
                Ok(length)
            }
            Reader::Packed(decoder) => decoder.read(buffer),
        }
    }
}

/// The numbers of the files that are there, newest first; 0 is the current one. There may be gaps.
pub(super) fn numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(number_in));
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn number_in(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(FILE_NAME)?;
    if rest.is_empty() {
        return Some(0);
    }
    let number = rest.strip_prefix('.')?;
    let number = number.strip_suffix(".gz").unwrap_or(number);
    number.parse().ok().filter(|number| *number > 0)
}

/// The name of a log file by its number.
pub(super) fn path(folder: &Path, number: u32) -> PathBuf {
    match number {
        0 => folder.join(FILE_NAME),
        number => folder.join(format!("{FILE_NAME}.{number}")),
    }
}

pub(super) fn packed_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{FILE_NAME}.{number}.gz"))
}

/// Open a file and hold it. None: there is none. To be called under the folder's lock, but for the current file.
pub(super) fn open(folder: &Path, number: u32) -> io::Result<Option<LogFile>> {
    if let Some(file) = open_held(&path(folder, number))? {
        return Ok(Some(LogFile {
            reader: Reader::Plain { file, at: 0 },
        }));
    }
    if number == 0 {
        return Ok(None);
    }
    let packed = open_held(&packed_path(folder, number))?;
    Ok(packed.map(|file| LogFile {
        reader: Reader::Packed(Box::new(MultiGzDecoder::new(file))),
    }))
}

/// Make the current file if it is not there, as a shim does that has nothing to write yet.
pub(super) fn make(folder: &Path) -> io::Result<()> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o640);
    options.open(path(folder, 0)).map(drop)
}

fn open_held(path: &Path) -> io::Result<Option<File>> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match lock(&file, libc::F_RDLCK) {
            // Its place was taken between the two calls, or it is gone.
            Ok(()) if file.metadata()?.nlink() == 0 => {}
            Ok(()) => return Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                // The shim looks whether anybody reads.
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether nobody reads the file just now.
pub(super) fn seems_unread(file: &File) -> io::Result<bool> {
    let is_unread = is_unread(file)?;
    if is_unread {
        lock(file, libc::F_UNLCK)?;
    }
    Ok(is_unread)
}

/// Whether nobody reads the file; none begins to while `file` is open.
pub(super) fn is_unread(file: &File) -> io::Result<bool> {
    match lock(file, libc::F_WRLCK) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        locked => locked.map(|()| true),
    }
}

fn lock(file: &File, kind: libc::c_int) -> io::Result<()> {
    let lock = libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock))?;
    Ok(())
}

/// The oldest file that was written to at `since_unix_nanos` or later.
pub(super) fn oldest(folder: &Path, since_unix_nanos: i64) -> io::Result<Option<LogFile>> {
    let _still = Still::shared(folder)?;
    for number in numbers(folder)?.into_iter().rev() {
        if let Some(file) = open(folder, number)?
            && (number == 0 || file.changed_unix_nanos()? >= since_unix_nanos)
        {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

pub(super) fn newest_at_end(folder: &Path) -> io::Result<Option<LogFile>> {
    let _still = Still::shared(folder)?;
    let mut newest = open(folder, 0)?;
    if let Some(file) = &mut newest {
        file.seek(file.len()?)?;
    }
    Ok(newest)
}

/// The newest file.
pub(super) fn newest(folder: &Path) -> io::Result<Option<LogFile>> {
    let _still = Still::shared(folder)?;
    first_of(folder, numbers(folder)?)
}

/// The file that came before one which is held.
pub(super) fn before(folder: &Path, file: &LogFile) -> io::Result<Option<LogFile>> {
    let own = file.identity()?;
    let _still = Still::shared(folder)?;
    let mut numbers = numbers(folder)?.into_iter();
    for number in numbers.by_ref() {
        if let Some(candidate) = open(folder, number)?
            && candidate.identity()? == own
        {
            break;
        }
    }
    first_of(folder, numbers)
}

fn first_of(folder: &Path, numbers: impl IntoIterator<Item = u32>) -> io::Result<Option<LogFile>> {
    for number in numbers {
        if let Some(file) = open(folder, number)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// What comes after a file.
pub(super) enum Next {
    /// It is the newest.
    Nothing,
    File(LogFile),
    /// The file is gone, and perhaps others that came after it. This is the oldest one there is.
    Lost(LogFile),
}

pub(super) fn after(folder: &Path, file: &LogFile) -> io::Result<Next> {
    let own = file.identity()?;
    // Without a lock: a current file that is still this one has nothing behind it.
    if let Ok(metadata) = std::fs::metadata(path(folder, 0))
        && (metadata.dev(), metadata.ino()) == own
    {
        return Ok(Next::Nothing);
    }
    let _still = Still::shared(folder)?;
    let mut newer = None;
    for number in numbers(folder)? {
        let Some(candidate) = open(folder, number)? else {
            continue;
        };
        if candidate.identity()? == own {
            return Ok(newer.map_or(Next::Nothing, Next::File));
        }
        newer = Some(candidate);
    }
    Ok(newer.map_or(Next::Nothing, Next::Lost))
}
