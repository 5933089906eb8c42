//! How a segment of the journal looks on disk, and what a damaged one means.
//!
//! A file `00000001.segment` begins with a head: the magic (8 bytes), the version of the format, the segment's number, the length of the
//! segment before it, and a checksum of these, each a little-endian u32. Records follow: the length of the body, its checksum, how far
//! the segment was synced when the record was written, a checksum of these three with the segment's number and the record's
//! offset; then the body. So a record says of all that is before that mark: it was on disk, and somebody may have been told so.
//! What can not be read beyond the last such mark was never acknowledged; before it, something acknowledged is lost.

use std::ops::Range;

/// Why records of a segment can not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    /// Where it begins.
    pub(super) offset: u32,
    /// What is wrong there.
    pub(super) found: &'static str,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Its length with its head.
    pub(super) bytes: u32,
}

/// Why the head of a segment can not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Headless {
    /// It is not what was written.
    Damaged(Damage),
    /// It is of a format that this version does not know.
    Unknown(u32),
}

/// A segment as it was read.
#[derive(Debug)]
pub(super) struct Scan {
    /// The records that can be read up to the first one that can not: where each is, and where its body is.
    pub(super) records: Vec<(Place, Range<usize>)>,
    /// Where the last of them ends.
    pub(super) end: u32,
    /// What follows them, if the file does not end there.
    pub(super) rest: Option<Rest>,
}

/// What follows the last record that can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Bytes that nobody was told to be on disk.
    Torn,
    /// A record that was on disk.
    Damaged(Damage),
}

const MAGIC: &[u8; 8] = b"HEARTHQ\n";
/// The version of the format that is written, and the only one that is read.
pub(super) const VERSION: u32 = 1;
const SUFFIX: &str = ".segment";

/// Bytes before the first record.
pub(super) const HEAD_BYTES: u32 = 24;
/// Bytes before a record's body.
pub(super) const RECORD_HEAD_BYTES: u32 = 16;

/// A segment's file name.
pub(super) fn file_name(number: u32) -> String {
    format!("{number:08}{SUFFIX}")
}

/// The segment's number, if it is the name of one.
pub(super) fn number(file_name: &str) -> Option<u32> {
    let number = file_name.strip_suffix(SUFFIX)?.parse().ok()?;
    (self::file_name(number) == file_name).then_some(number)
}

/// The head of a segment.
pub(super) fn head(number: u32, previous_bytes: u32) -> [u8; HEAD_BYTES as usize] {
    let mut head = [0; HEAD_BYTES as usize];
    head[..8].copy_from_slice(MAGIC);
    put(&mut head, 8, VERSION);
    put(&mut head, 12, number);
    put(&mut head, 16, previous_bytes);
    let crc = crc32fast::hash(&head[..20]);
    put(&mut head, 20, crc);
    head
}

/// Reads the head of a segment: the length that the segment before it had.
pub(super) fn read_head(bytes: &[u8], number: u32) -> Result<u32, Headless> {
    let damaged = |offset, found| Headless::Damaged(Damage { offset, found });
    let Some(head) = bytes.get(..HEAD_BYTES as usize) else {
        return Err(damaged(0, "the head of the segment is cut off"));
    };
    if &head[..8] != MAGIC {
        return Err(damaged(0, "this is no segment of a queue"));
    }
    if crc32fast::hash(&head[..20]) != get(head, 20) {
        return Err(damaged(
            8,
            "the head of the segment does not match its checksum",
        ));
    }
    match get(head, 8) {
        VERSION => {}
        unknown => return Err(Headless::Unknown(unknown)),
    }
    if get(head, 12) != number {
        return Err(damaged(12, "the segment has the name of another one"));
    }
    Ok(get(head, 16))
}

/// Whether this is what a crash may leave of a head.
pub(super) fn is_torn(head: &[u8]) -> bool {
    head.len() < HEAD_BYTES as usize || crc32fast::hash(&head[..20]) != get(head, 20)
}

/// Appends a record that will stand at this offset.
pub(super) fn append(to: &mut Vec<u8>, body: &[u8], number: u32, offset: u32, synced: u32) {
    let length = u32::try_from(body.len()).expect("a record is bounded far below 4 GiB");
    let start = to.len();
    to.resize(start + RECORD_HEAD_BYTES as usize, 0);
    let head = &mut to[start..];
    put(head, 0, length);
    put(head, 4, crc32fast::hash(body));
    put(head, 8, synced);
    let crc = head_crc(head, number, offset);
    put(head, 12, crc);
    to.extend_from_slice(body);
}

/// The body of the record that `bytes` are, if they are what was written to this place.
pub(super) fn body(bytes: &[u8], place: Place) -> Option<&[u8]> {
    let (length, _) = record_head(bytes, place.segment, place.offset)?;
    let body = bytes.get(RECORD_HEAD_BYTES as usize..)?;
    (body.len() == length as usize && crc32fast::hash(body) == get(bytes, 4)).then_some(body)
}

/// Reads all records of a segment, whose head was read before. Of one that was `sealed`, because another one follows it, all was on disk.
pub(super) fn scan(file: &[u8], number: u32, sealed: bool) -> Scan {
    let mut scan = Scan {
        records: Vec::new(),
        end: HEAD_BYTES,
        rest: None,
    };
    while (scan.end as usize) < file.len() {
        match record(file, number, scan.end) {
            Ok(place) => {
                let start = (place.offset + RECORD_HEAD_BYTES) as usize;
                let end = (place.offset + place.bytes) as usize;
                scan.records.push((place, start..end));
                scan.end += place.bytes;
            }
            Err(found) => {
                let offset = scan.end;
                let was_on_disk = sealed || is_vouched_for(file, number, offset);
                scan.rest = Some(match was_on_disk {
                    true => Rest::Damaged(Damage { offset, found }),
                    false => Rest::Torn,
                });
                break;
            }
        }
    }
    scan
}

/// The record at this offset.
fn record(file: &[u8], number: u32, offset: u32) -> Result<Place, &'static str> {
    let bytes = &file[offset as usize..];
    if bytes.len() < RECORD_HEAD_BYTES as usize {
        return Err("the head of a record is cut off");
    }
    let Some((length, _)) = record_head(bytes, number, offset) else {
        return Err("the head of a record does not match its checksum");
    };
    let bytes_all = RECORD_HEAD_BYTES as usize + length as usize;
    let Some(bytes) = bytes.get(..bytes_all) else {
        return Err("a record is cut off");
    };
    let place = Place {
        segment: number,
        offset,
        bytes: RECORD_HEAD_BYTES + length,
    };
    match body(bytes, place) {
        Some(_) => Ok(place),
        None => Err("a record does not match its checksum"),
    }
}

/// Whether a record after this offset says that it was on disk. The checksum of a head covers where it stands, so that a
/// payload can not pass for one.
fn is_vouched_for(file: &[u8], number: u32, offset: u32) -> bool {
    (offset + 1..).map_while(|later| Some((later, file.get(later as usize..)?))).any(
        |(later, bytes)| {
            matches!(record_head(bytes, number, later), Some((_, synced)) if synced > offset && synced <= later)
        },
    )
}

/// Length of the body and mark of the record that begins here, if a head does.
fn record_head(bytes: &[u8], number: u32, offset: u32) -> Option<(u32, u32)> {
    let head = bytes.get(..RECORD_HEAD_BYTES as usize)?;
    (get(head, 12) == head_crc(head, number, offset)).then(|| (get(head, 0), get(head, 8)))
}

fn head_crc(head: &[u8], number: u32, offset: u32) -> u32 {
    let mut covered = [0; 20];
    covered[..12].copy_from_slice(&head[..12]);
    put(&mut covered, 12, number);
    put(&mut covered, 16, offset);
    crc32fast::hash(&covered)
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}
