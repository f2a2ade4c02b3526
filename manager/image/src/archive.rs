//! Reading a tar stream: one entry after another, with bounds before every allocation.
//!
//! Written for layers of unknown origin. Where tar readers differ in what they make of an archive (a PAX header and
//! a GNU long name for one entry, sizes on entries that have no data, sparse maps), the archive is refused: an
//! entry that a scanner sees in another way than we do is how images smuggle files. Sources: POSIX.1-2017 pax,
//! "ustar Interchange Format"; GNU tar manual, "Basic Tar Format"; the tar package of Go, which container tools use.

mod header;
mod pax;
mod sparse;

pub(crate) use sparse::Extent;

use std::io::{self, Read};

use header::{BLOCK, Header};

/// Bound of a PAX header or GNU long name, as in Go's reader.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// A point in time since the Unix epoch, which may lie before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// One entry with all extensions applied. Names are bytes: tar knows no encoding.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    /// Where in a file with holes its data belongs; `None` for a file without.
    pub(crate) extents: Option<Vec<Extent>>,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Time,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why no entry could be read.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The archive breaks a rule; the entry's name as far as it is known.
    Rule(Option<Vec<u8>>, String),
    /// The stream below failed.
    Read(io::Error),
}

impl Failure {
    fn rule(rule: impl Into<String>) -> Failure {
        Failure::Rule(None, rule.into())
    }

    fn of(self, entry: &[u8]) -> Failure {
        match self {
            Failure::Rule(None, rule) => Failure::Rule(Some(entry.to_vec()), rule),
            other => other,
        }
    }
}

/// A tar stream. After [`Archive::next`] has given an entry, its data can be read, whole or in part.
pub(crate) struct Archive<R> {
    stream: R,
    /// Data of the current entry not yet read.
    data: u64,
    /// Zero bytes after that data, up to the next block.
    padding: u64,
    headers: u64,
    headers_max: u64,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(stream: R, headers_max: u64) -> Archive<R> {
        Archive {
            stream,
            data: 0,
            padding: 0,
            headers: 0,
            headers_max,
        }
    }

    /// The next entry, or `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, Failure> {
        let mut pax: Option<pax::Records> = None;
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                if pax.is_some() || long_name.is_some() || long_link.is_some() {
                    return Err(Failure::rule(
                        "the archive ends between an extension header and its entry",
                    ));
                }
                return Ok(None);
            };
            match header.kind() {
                b'x' => {
                    let records = self.extension(&header)?;
                    let records = pax::parse(&records).map_err(Failure::rule)?;
                    set_once(&mut pax, records, "PAX header")?;
                }
                b'g' => {
                    let records = self.extension(&header)?;
                    let records = pax::parse(&records).map_err(Failure::rule)?;
                    if records.changes_entries() {
                        return Err(Failure::rule(
                            "a global PAX header that changes entries is not supported",
                        ));
                    }
                }
                b'L' => set_once(&mut long_name, self.long(&header)?, "GNU long name")?,
                b'K' => set_once(&mut long_link, self.long(&header)?, "GNU long link")?,
                _ => {
                    if pax.is_some() && (long_name.is_some() || long_link.is_some()) {
                        return Err(Failure::rule(
                            "one entry has both a PAX header and a GNU long name",
                        ));
                    }
                    let mut pax = pax.unwrap_or_default();
                    let mut sparse = pax.sparse.take();
                    // The header has a name made up for readers that know no holes.
                    if let Some(name) = sparse.as_mut().and_then(|sparse| sparse.name.take()) {
                        pax.path = Some(name);
                    }
                    let mut entry = header.entry(pax, long_name, long_link)?;
                    self.data = entry.size;
                    self.padding = padding(entry.size);
                    self.map_holes(&header, &mut entry, sparse)
                        .map_err(|failure| failure.of(&entry.path))?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Learn where the data of a file with holes belongs: from its records, or from blocks before its data.
    fn map_holes(
        &mut self,
        header: &Header,
        entry: &mut Entry,
        records: Option<sparse::Records>,
    ) -> Result<(), Failure> {
        let (size, extents) = match (header.is_old_sparse(), records) {
            (false, None) => return Ok(()),
            (true, Some(_)) => return Err(Failure::rule("it is sparse in two formats")),
            (true, None) => {
                let mut map = sparse::OldMap::of(header).map_err(Failure::rule)?;
                while map.has_more() {
                    map.take(&self.map_block()?).map_err(Failure::rule)?;
                }
                map.finish()
            }
            (false, Some(_)) if entry.kind != Kind::File => {
                return Err(Failure::rule("it is sparse, but not a regular file"));
            }
            (false, Some(records)) => {
                let mut map = None;
                if records.map_is_in_data().map_err(Failure::rule)? {
                    let mut reader = sparse::DataMap::default();
                    while map.is_none() {
                        self.data = self
                            .data
                            .checked_sub(BLOCK as u64)
                            .ok_or_else(|| Failure::rule("the map of its holes is longer than its data"))?;
                        map = reader.take(&self.map_block()?).map_err(Failure::rule)?;
                    }
                }
                records.finish(map).map_err(Failure::rule)?
            }
        };
        sparse::check(size, &extents, self.data).map_err(Failure::rule)?;
        entry.size = size;
        entry.extents = Some(extents);
        Ok(())
    }

    fn map_block(&mut self) -> Result<[u8; BLOCK], Failure> {
        self.block()?
            .ok_or_else(|| Failure::rule("the archive ends inside the map of a file's holes"))
    }

    /// Read some of the current entry's data; 0 at its end.
    pub(crate) fn read_data(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let got = self.stream.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the archive ends inside an entry",
            ));
        }
        self.data -= got as u64;
        Ok(got)
    }

    /// Read what follows the archive's end, so that a digest below sees every byte.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        while self.stream.read(&mut buffer)? > 0 {}
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), Failure> {
        let (mut left, padding) = (self.data + self.padding, self.padding);
        (self.data, self.padding) = (0, 0);
        let mut buffer = [0; 4096];
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.stream.read(&mut buffer[..want]).map_err(Failure::Read)? {
                // umoci's `insert` ends its archives so; nothing of the entry is missing.
                0 if left <= padding => return Ok(()),
                0 => return Err(Failure::rule("the archive ends inside an entry")),
                got => left -= got as u64,
            }
        }
        Ok(())
    }

    /// The next header block; `None` at two zero blocks, or where the stream ends between entries.
    fn header(&mut self) -> Result<Option<Header>, Failure> {
        let Some(block) = self.block()? else {
            return Ok(None);
        };
        if block.iter().all(|b| *b == 0) {
            return match self.block()? {
                Some(second) if second.iter().any(|b| *b != 0) => {
                    Err(Failure::rule("a single zero block stands between two entries"))
                }
                _ => Ok(None),
            };
        }
        self.headers += 1;
        if self.headers > self.headers_max {
            return Err(Failure::rule(format!(
                "the archive has more than {} entries",
                self.headers_max
            )));
        }
        Header::parse(&block).map(Some).map_err(Failure::rule)
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Failure> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Failure::rule("the archive ends inside a header")),
                Ok(got) => filled += got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Failure::Read(e)),
            }
        }
        Ok(Some(block))
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Failure> {
        let size = header.size().map_err(Failure::rule)?;
        if size > EXTENSION_BYTES_MAX {
            return Err(Failure::rule(format!(
                "an extension header of {size} bytes is longer than {EXTENSION_BYTES_MAX}"
            )));
        }
        let mut content = vec![0; size as usize];
        self.stream.read_exact(&mut content).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Failure::rule("the archive ends inside an extension header"),
            _ => Failure::Read(e),
        })?;
        self.padding = padding(size);
        Ok(content)
    }

    fn long(&mut self, header: &Header) -> Result<Vec<u8>, Failure> {
        let mut name = self.extension(header)?;
        // GNU tar counts the terminating NUL.
        if name.last() == Some(&0) {
            name.pop();
        }
        Ok(name)
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<(), Failure> {
    if slot.replace(value).is_some() {
        return Err(Failure::rule(format!("one entry has more than one {what}")));
    }
    Ok(())
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    /// What is taken is taken record by record: each of two halves that are records is taken by itself.
    pub(crate) fn pax(content: &[u8]) {
        if super::pax::parse(content).is_err() {
            return;
        }
        for (end, _) in content.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            let (before, after) = content.split_at(end + 1);
            if super::pax::is_whole(before) && super::pax::is_whole(after) {
                super::pax::parse(before).expect("the first records alone");
            }
        }
    }
}

#[cfg(test)]
mod tests;
