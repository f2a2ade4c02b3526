//! Files with holes, in the four ways that GNU tar has written them.
//!
//! Whoever does not know them sees another file of another size. So what is said of the holes has to be complete and
//! to fit the stored data to the byte, or the archive is refused. Source: GNU tar manual, "Storing Sparse Files".

use super::header::{BLOCK, Header};

/// A stretch of a file that the archive has the bytes of; what lies between two is a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Bound of a map, whichever way it is written: extents of one file, and bytes of the text that tells them.
const EXTENTS_MAX: usize = 64 << 10;
const MAP_BYTES_MAX: usize = 2 << 20;

/// What PAX records say of a sparse file: formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    major: Option<u64>,
    minor: Option<u64>,
    blocks: Option<u64>,
    /// Offset and length by turns.
    map: Vec<u64>,
}

impl Records {
    /// Take the record `GNU.sparse.<key>`.
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let slot = match key {
            b"name" => return once(&mut self.name, value.to_vec()),
            b"map" if !self.map.is_empty() => return Err(TWICE.into()),
            b"map" => {
                for part in value.split(|b| *b == b',') {
                    self.push(decimal(part)?)?;
                }
                return Ok(());
            }
            // Format 0.0 says it extent by extent, in records that are the same but for their values.
            b"offset" if self.map.len().is_multiple_of(2) => return self.push(decimal(value)?),
            b"numbytes" if !self.map.len().is_multiple_of(2) => return self.push(decimal(value)?),
            b"size" | b"realsize" => &mut self.size,
            b"major" => &mut self.major,
            b"minor" => &mut self.minor,
            b"numblocks" => &mut self.blocks,
            _ => return Err("a PAX record about a sparse file is unknown or out of order".into()),
        };
        once(slot, decimal(value)?)
    }

    fn push(&mut self, number: u64) -> Result<(), String> {
        if self.map.len() == EXTENTS_MAX * 2 {
            return Err(too_many());
        }
        self.map.push(number);
        Ok(())
    }

    /// Whether the map stands before the data, as in format 1.0; else it is in the records.
    pub(super) fn map_is_in_data(&self) -> Result<bool, String> {
        match (self.major, self.minor) {
            (Some(1), Some(0)) if self.map.is_empty() && self.blocks.is_none() => Ok(true),
            (None, None) | (Some(0), Some(0 | 1)) => Ok(false),
            _ => Err("its sparse format is not 0.0, 0.1 or 1.0".into()),
        }
    }

    /// The whole size and the map of the records. One that is in the data is given as `map`.
    pub(super) fn finish(self, map: Option<Vec<u64>>) -> Result<(u64, Vec<Extent>), String> {
        let size = self.size.ok_or("a sparse file without its size")?;
        let numbers = map.unwrap_or(self.map);
        if !numbers.len().is_multiple_of(2) || self.blocks.is_some_and(|n| n != numbers.len() as u64 / 2) {
            return Err("the map of its holes is not complete".into());
        }
        Ok((size, pairs(&numbers)))
    }
}

/// The map at the beginning of the data in format 1.0: decimal lines, their count first, filled up to a block.
#[derive(Debug, Default)]
pub(super) struct DataMap {
    numbers: Vec<u64>,
    line: Vec<u8>,
    bytes: usize,
}

impl DataMap {
    /// Take one more block; the finished numbers when it was the last.
    pub(super) fn take(&mut self, block: &[u8; BLOCK]) -> Result<Option<Vec<u64>>, String> {
        self.bytes += BLOCK;
        if self.bytes > MAP_BYTES_MAX {
            return Err(too_many());
        }
        for byte in block {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            self.numbers.push(decimal(&std::mem::take(&mut self.line))?);
            let count = self.numbers[0];
            if count > EXTENTS_MAX as u64 {
                return Err(too_many());
            }
            if self.numbers.len() as u64 == count * 2 + 1 {
                return Ok(Some(self.numbers.split_off(1)));
            }
        }
        if self.line.len() > BLOCK {
            return Err(NO_NUMBER.into());
        }
        Ok(None)
    }
}

/// GNU tar's old format: four extents in the header, more in blocks after it.
#[derive(Debug)]
pub(super) struct OldMap {
    size: u64,
    numbers: Vec<u64>,
    has_more: bool,
    bytes: usize,
}

impl OldMap {
    pub(super) fn of(header: &Header) -> Result<OldMap, String> {
        let size = header.number(483..495, "real size")?;
        let mut map = OldMap {
            size: u64::try_from(size).map_err(|_| format!("its real size {size} is negative"))?,
            numbers: Vec::new(),
            has_more: header.byte(482) != 0,
            bytes: 0,
        };
        map.read(header, 386, 4)?;
        Ok(map)
    }

    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    pub(super) fn take(&mut self, block: &[u8; BLOCK]) -> Result<(), String> {
        self.bytes += BLOCK;
        if self.bytes > MAP_BYTES_MAX {
            return Err(too_many());
        }
        let block = Header::unchecked(block);
        self.has_more = block.byte(504) != 0;
        self.read(&block, 0, 21)
    }

    fn read(&mut self, block: &Header, start: usize, count: usize) -> Result<(), String> {
        for field in (start..).step_by(12).take(count * 2) {
            // What is not needed is left zero.
            if (field - start).is_multiple_of(24) && block.byte(field) == 0 {
                return Ok(());
            }
            let number = block.number(field..field + 12, "sparse map")?;
            self.numbers
                .push(u64::try_from(number).map_err(|_| "the map of its holes has a negative number")?);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> (u64, Vec<Extent>) {
        (self.size, pairs(&self.numbers))
    }
}

/// Check that the extents lie one after the other in the file and are what is stored.
pub(super) fn check(size: u64, extents: &[Extent], stored: u64) -> Result<(), String> {
    let (mut end, mut total) = (0u64, 0u64);
    for extent in extents {
        let next = extent.offset.checked_add(extent.length);
        let next = next.filter(|next| extent.offset >= end && *next <= size);
        end = next.ok_or("the map of its holes is out of order or longer than the file")?;
        total += extent.length;
    }
    if total != stored {
        return Err(format!(
            "the map of its holes tells of {total} bytes of data, but {stored} are stored"
        ));
    }
    Ok(())
}

const TWICE: &str = "a PAX record about a sparse file is there twice";
const NO_NUMBER: &str = "the map of its holes has something that is no number";

fn too_many() -> String {
    format!("it has more than {EXTENTS_MAX} holes")
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), String> {
    slot.replace(value).map_or(Ok(()), |_| Err(TWICE.into()))
}

fn decimal(text: &[u8]) -> Result<u64, String> {
    super::pax::decimal(text)
        .map(i64::cast_unsigned)
        .ok_or(NO_NUMBER.into())
}

fn pairs(numbers: &[u64]) -> Vec<Extent> {
    let pairs = numbers.chunks_exact(2);
    pairs
        .map(|pair| Extent {
            offset: pair[0],
            length: pair[1],
        })
        .collect()
}
