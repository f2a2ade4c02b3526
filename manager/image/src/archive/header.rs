//! One 512-byte header block: checksum, fields, and the entry it makes together with its extensions.

use super::{Entry, Failure, Kind, Time, pax};

pub(super) const BLOCK: usize = 512;

/// The largest size that eleven octal digits can say.
const OCTAL_SIZE_MAX: u64 = 0o777_7777_7777;

pub(super) struct Header {
    block: [u8; BLOCK],
}

impl Header {
    /// Take a block if its checksum is right.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Header, String> {
        let header = Header { block: *block };
        let broken = "a header's checksum is wrong: this is not a tar archive, or it is damaged";
        let expected = header.number(148..156, "checksum").map_err(|_| broken)?;
        let bytes = block
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
        let unsigned: i64 = bytes.clone().map(i64::from).sum();
        // Historic tars summed signed chars.
        let signed: i64 = bytes.map(|b| i64::from(b as i8)).sum();
        if expected != unsigned && expected != signed {
            return Err(broken.into());
        }
        Ok(header)
    }

    /// A block that has no checksum: what follows an old sparse header.
    pub(super) fn unchecked(block: &[u8; BLOCK]) -> Header {
        Header { block: *block }
    }

    pub(super) fn byte(&self, position: usize) -> u8 {
        self.block[position]
    }

    /// GNU tar's type for a file with holes, before it wrote them into PAX records.
    pub(super) fn is_old_sparse(&self) -> bool {
        self.kind() == b'S'
    }

    pub(super) fn kind(&self) -> u8 {
        self.block[156]
    }

    pub(super) fn size(&self) -> Result<u64, String> {
        let size = self.number(124..136, "size")?;
        u64::try_from(size).map_err(|_| format!("its size {size} is negative"))
    }

    /// The entry of this header and the extensions that came before it.
    pub(super) fn entry(
        &self,
        pax: pax::Records,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Failure> {
        let path = pax.path.clone().or(long_name).map_or_else(|| self.path(), Ok);
        let path = path.map_err(|rule| Failure::Rule(None, rule))?;
        let named = path.clone();
        let link = pax
            .link
            .clone()
            .or(long_link)
            .unwrap_or_else(|| text(&self.block[157..257]).to_vec());
        self.checked(path, link, pax)
            .map_err(|rule| Failure::Rule(Some(named), rule))
    }

    fn checked(&self, path: Vec<u8>, link: Vec<u8>, pax: pax::Records) -> Result<Entry, String> {
        if path.contains(&0) || link.contains(&0) {
            return Err("its name has a NUL byte".into());
        }
        let size = self.agreed_size(pax.size)?;
        let kind = match self.kind() {
            // Before directories had a type, a trailing slash made one.
            0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | b'S' if path.ends_with(b"/") => {
                return Err("it is a regular file, but its name ends as a folder's".into());
            }
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(format!("entry type {:?} is not supported", char::from(other))),
        };
        if kind != Kind::File && size != 0 {
            return Err(format!("it is not a regular file, but has {size} bytes of data"));
        }
        let id = |value: Option<i64>, range, what: &str| {
            let id = value.map_or_else(|| self.number(range, what), Ok)?;
            // The last number means "leave as it is" to chown.
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or(format!("its {what} {id} is out of range"))
        };
        let number = |range, what: &str| {
            let number = self.number(range, what)?;
            u32::try_from(number).map_err(|_| format!("its {what} {number} is out of range"))
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => (
                number(329..337, "device major")?,
                number(337..345, "device minor")?,
            ),
            _ => (0, 0),
        };
        let modified = match pax.modified {
            Some(time) => time,
            None => Time {
                seconds: self.number(136..148, "mtime")?,
                nanoseconds: 0,
            },
        };
        // Some writers put the whole st_mode here; the type says the rest.
        let mode = (self.number(100..108, "mode")? & 0o7777) as u32;
        let uid = id(pax.uid, 108..116, "uid")?;
        let gid = id(pax.gid, 116..124, "gid")?;
        Ok(Entry {
            path,
            link,
            kind,
            size,
            extents: None,
            mode,
            uid,
            gid,
            modified,
            device,
            xattrs: pax.xattrs,
        })
    }

    /// The size of the data. A PAX record is for what the header has no room for; where it says something else in
    /// place of the header, readers disagree where the next entry begins (CVE-2025-62518, CVE-2026-33055).
    fn agreed_size(&self, pax: Option<u64>) -> Result<u64, String> {
        let own = self.size()?;
        match pax {
            Some(pax) if pax != own && pax <= OCTAL_SIZE_MAX => Err(format!(
                "its size is {own} in the header and {pax} in the PAX record"
            )),
            Some(pax) => Ok(pax),
            None => Ok(own),
        }
    }

    fn path(&self) -> Result<Vec<u8>, String> {
        let name = text(&self.block[..100]);
        if &self.block[257..263] != b"ustar\0" {
            return Ok(name.to_vec());
        }
        // star marks its own layout, whose prefix is shorter, at the end of the block.
        let prefix_end = if &self.block[508..512] == b"tar\0" {
            476
        } else {
            500
        };
        let prefix = text(&self.block[345..prefix_end]);
        match prefix {
            b"" => Ok(name.to_vec()),
            // Some readers take it for GNU's or the oldest format then, which have no prefix.
            _ if &self.block[263..265] != b"00" => {
                Err("a header has a path prefix, but not the version of its format".into())
            }
            _ => Ok([prefix, name].join(&b'/')),
        }
    }

    /// A number in octal text, or in GNU's base-256 when its first bit is set.
    pub(super) fn number(&self, range: std::ops::Range<usize>, what: &str) -> Result<i64, String> {
        let field = &self.block[range];
        if field[0] & 0x80 != 0 {
            return base_256(field).ok_or_else(|| format!("its {what} does not fit 64 bits"));
        }
        // Digits behind the first NUL count for some readers and not for others: they are none here, nor a number.
        let end = field
            .iter()
            .rposition(|b| !matches!(b, 0 | b' '))
            .map_or(0, |last| last + 1);
        let text = field[..end].trim_ascii_start();
        if text.is_empty() {
            return Ok(0);
        }
        let digits = std::str::from_utf8(text)
            .ok()
            .filter(|t| t.bytes().all(|b| (b'0'..=b'7').contains(&b)));
        digits
            .and_then(|t| i64::from_str_radix(t, 8).ok())
            .ok_or_else(|| format!("its {what} is not an octal number"))
    }
}

/// Two's complement, big endian, without the mark in the first bit.
fn base_256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (i, byte) in field.iter().enumerate() {
        let byte = match i {
            0 if negative => byte | 0x80,
            0 => byte & 0x7f,
            _ => *byte,
        };
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).ok()
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}
