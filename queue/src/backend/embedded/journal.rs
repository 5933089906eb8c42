//! The journal: segments of a bounded size, written at the end of the last one and released at the front.
//!
//! Segments are released strictly oldest first, each by a record that is on disk before the file is removed, so that a file
//! that is missing can be told from one that was released. The writer alone has a journal; whoever reads shares its [`Segments`].

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use super::disk::{Disk, DiskFile};
use super::record::Record;
use super::segment::{self, Damage, HEAD_BYTES, Headless, Place, RECORD_HEAD_BYTES, Rest};

/// Why the queue can not be opened. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the queue in {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The disk says no.
    #[error("the queue in {} can not be opened", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another version of this program wrote it.
    #[error(
        "the queue can not be read: {} has format {format}, and this version reads {}; start the version that wrote it, and let it deliver what waits",
        file.display(), segment::VERSION
    )]
    Format {
        /// The file.
        file: PathBuf,
        /// What it says.
        format: u32,
    },
    /// What was acknowledged can not be read any more.
    #[error(
        "the queue is damaged: {} at byte {offset}: {found}; what was accepted there may be lost, so nothing is deleted: restore {} from a copy, or move it \
         away to start with an empty queue",
        file.display(), file.parent().unwrap_or(file).display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u32,
        /// What is wrong there.
        found: &'static str,
    },
}

/// The open files, by number of their segment.
#[derive(Debug, Default)]
pub(super) struct Segments(RwLock<BTreeMap<u32, Arc<dyn DiskFile>>>);

/// Why a record can not be read while the queue runs.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("segment {} at byte {}: {source}", place.segment, place.offset)]
    Io { place: Place, source: io::Error },
    #[error("segment {} at byte {}: the record does not match its checksum", .0.segment, .0.offset)]
    Damaged(Place),
}

/// The end of the journal, where it is written.
#[derive(Debug)]
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    segments: Arc<Segments>,
    /// The length of each segment.
    bytes: BTreeMap<u32, u32>,
    last: u32,
    file: Arc<dyn DiskFile>,
    /// How much of the last segment is on disk for sure.
    synced: u32,
    segment_bytes: u32,
    /// The last segment is not to be written any more.
    is_broken: bool,
}

impl Journal {
    /// Opens the journal in this directory, and tells `replay` every record; what that says is wrong with one is damage.
    /// Says how many bytes at the end were dropped: they were never acknowledged.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        segment_bytes: u32,
        replay: impl FnMut(Place, Record<'_>) -> Result<(), &'static str>,
    ) -> Result<(Self, u64), OpenError> {
        let mut read = Reading::new(disk.as_ref()).read(replay)?;
        let failed = |source| OpenError::Io {
            path: disk.path().to_owned(),
            source,
        };
        if let Some((_, file, end)) = read.files.last() {
            // A process that was killed leaves what it had not synced.
            file.set_len(u64::from(*end)).map_err(failed)?;
            file.sync().map_err(failed)?;
        } else {
            let file = create(disk.as_ref(), 1, 0).map_err(failed)?;
            read.files.push((1, file, HEAD_BYTES));
        }
        let (last, file, synced) = read.files.last().expect("one was made above").clone();
        let bytes = read.files.iter().map(|(number, _, end)| (*number, *end));
        let bytes = bytes.collect();
        let files = read.files.into_iter();
        let files = files.map(|(number, file, _)| (number, file)).collect();
        let journal = Self {
            segments: Arc::new(Segments(RwLock::new(files))),
            bytes,
            last,
            file,
            synced,
            segment_bytes,
            is_broken: false,
            disk: Arc::clone(&disk),
        };
        Ok((journal, read.dropped))
    }

    pub(super) fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.segments)
    }

    /// The size at which a segment is followed by another one.
    pub(super) fn segment_bytes(&self) -> u32 {
        self.segment_bytes
    }

    /// The bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.values().map(|bytes| u64::from(*bytes)).sum()
    }

    /// The oldest segment, if it is not the one that is written.
    pub(super) fn oldest(&self) -> Option<u32> {
        let oldest = self.bytes.first_key_value().map(|(number, _)| *number);
        oldest.filter(|oldest| *oldest != self.last)
    }

    /// Whether nothing may be appended before [`Journal::roll`].
    pub(super) fn wants_roll(&self) -> bool {
        self.is_broken || self.written() >= self.segment_bytes
    }

    /// Whether the last segment can not be synced any more.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Goes on in a new segment. All of the last one must be synced, or was cut back to what is.
    pub(super) fn roll(&mut self) -> io::Result<()> {
        let number = self.last + 1;
        let file = create(self.disk.as_ref(), number, self.synced)?;
        self.segments.write().insert(number, Arc::clone(&file));
        self.bytes.insert(number, HEAD_BYTES);
        (self.last, self.file, self.synced) = (number, file, HEAD_BYTES);
        self.is_broken = false;
        Ok(())
    }

    /// Appends these records with one write. On disk they are after [`Journal::sync`].
    pub(super) fn append<'a>(
        &mut self,
        bodies: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> io::Result<Vec<Place>> {
        let start = self.written();
        let bytes = bodies
            .clone()
            .map(|body| body.len() + RECORD_HEAD_BYTES as usize);
        let mut buffer = Vec::with_capacity(bytes.sum());
        let mut places = Vec::new();
        let mut offset = start;
        for body in bodies {
            let before = buffer.len();
            segment::append(&mut buffer, body, self.last, offset, self.synced);
            let bytes = u32::try_from(buffer.len() - before).map_err(io::Error::other)?;
            places.push(Place {
                segment: self.last,
                offset,
                bytes,
            });
            offset += bytes;
        }
        self.file.write_at(&buffer, u64::from(start))?;
        self.bytes.insert(self.last, offset);
        Ok(places)
    }

    /// Makes all that was appended outlive a crash. After an error it is unknown what does: see [`Journal::cut_back`].
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.written() > self.synced {
            // What a failed sync did not write, a later one does not write either, and says that all is well.
            self.is_broken = true;
            self.file.sync()?;
            self.is_broken = false;
            self.synced = self.written();
        }
        Ok(())
    }

    /// Removes all that was not synced, so that what is refused now is not found after a restart.
    ///
    /// # Errors
    /// Where that failed it may be found, unless the journal goes on in a new segment before that.
    pub(super) fn cut_back(&mut self) -> io::Result<()> {
        self.bytes.insert(self.last, self.synced);
        let cut = self
            .file
            .set_len(u64::from(self.synced))
            .and_then(|()| self.file.sync());
        if cut.is_err() {
            self.is_broken = true;
        }
        cut
    }

    /// Removes the oldest segment, of which nothing is needed any more and which a record on disk calls released.
    pub(super) fn remove(&mut self, number: u32) -> io::Result<()> {
        match self.disk.remove(&segment::file_name(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            // It was removed before, when that could not be synced.
            _ => self.disk.sync_directory()?,
        }
        self.segments.write().remove(&number);
        self.bytes.remove(&number);
        Ok(())
    }

    fn written(&self) -> u32 {
        self.bytes.get(&self.last).copied().unwrap_or(0)
    }
}

/// All segments on their way from the disk.
struct Reading<'a> {
    disk: &'a dyn Disk,
    /// Number, file and end of each segment.
    files: Vec<(u32, Arc<dyn DiskFile>, u32)>,
    released: u32,
    dropped: u64,
}

impl<'a> Reading<'a> {
    fn new(disk: &'a dyn Disk) -> Self {
        Self {
            disk,
            files: Vec::new(),
            released: 0,
            dropped: 0,
        }
    }

    fn read(
        mut self,
        mut replay: impl FnMut(Place, Record<'_>) -> Result<(), &'static str>,
    ) -> Result<Self, OpenError> {
        let numbers = numbers(self.disk).map_err(|source| self.failed(source))?;
        if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
            return Err(self.missing(gap[0] + 1));
        }
        // How long each segment was when the one after it began.
        let heads = self.heads(&numbers)?;
        let count = heads.len();
        let mut sealed = heads.into_iter().skip(1);
        for number in numbers.iter().copied().take(count) {
            self.segment(number, sealed.next(), &mut replay)?;
        }
        match numbers.first() {
            Some(first) if *first > self.released + 1 => Err(self.missing(first - 1)),
            _ => Ok(self),
        }
    }

    /// The heads of all segments. One without a head that nothing follows is what a crash leaves of a segment that was about
    /// to begin: it counts as dropped.
    fn heads(&mut self, numbers: &[u32]) -> Result<Vec<u32>, OpenError> {
        let mut heads = Vec::with_capacity(numbers.len());
        for number in numbers.iter().copied() {
            let (head, bytes) = self.head(number).map_err(|source| self.failed(source))?;
            match segment::read_head(&head, number) {
                Ok(previous_bytes) => heads.push(previous_bytes),
                Err(Headless::Unknown(format)) => {
                    let file = self.disk.path().join(segment::file_name(number));
                    return Err(OpenError::Format { file, format });
                }
                Err(Headless::Damaged(damage)) => {
                    let is_last = numbers.last() == Some(&number);
                    let is_empty = bytes <= u64::from(HEAD_BYTES);
                    if !(is_last && is_empty && segment::is_torn(&head)) {
                        return Err(self.damaged(number, damage));
                    }
                    self.dropped += bytes;
                }
            }
        }
        Ok(heads)
    }

    fn head(&self, number: u32) -> io::Result<(Vec<u8>, u64)> {
        let file = self.disk.open(&segment::file_name(number))?;
        let bytes = file.len()?;
        let wanted = bytes.min(u64::from(HEAD_BYTES));
        let mut head = vec![0; usize::try_from(wanted).unwrap_or(0)];
        file.read_at(&mut head, 0)?;
        Ok((head, bytes))
    }

    fn segment(
        &mut self,
        number: u32,
        sealed: Option<u32>,
        replay: &mut impl FnMut(Place, Record<'_>) -> Result<(), &'static str>,
    ) -> Result<(), OpenError> {
        let (file, mut bytes) = self.all(number).map_err(|source| self.failed(source))?;
        if let Some(sealed) = sealed {
            if bytes.len() < sealed as usize {
                let offset = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let found = "the segment is cut off";
                return Err(self.damaged(number, Damage { offset, found }));
            }
            // What is beyond was refused, as it could not be synced.
            bytes.truncate(sealed as usize);
        }
        let scan = segment::scan(&bytes, number, sealed.is_some());
        for (place, range) in &scan.records {
            let offset = place.offset;
            let damaged = |found| self.damaged(number, Damage { offset, found });
            let record = Record::read(&bytes[range.clone()])
                .map_err(|_| damaged("a record can not be understood"))?;
            if let Record::Released(through) = record {
                self.released = self.released.max(through);
                continue;
            }
            replay(*place, record)
                .map_err(|found| self.damaged(number, Damage { offset, found }))?;
        }
        match scan.rest {
            Some(Rest::Damaged(damage)) => return Err(self.damaged(number, damage)),
            Some(Rest::Torn) => self.dropped += bytes.len() as u64 - u64::from(scan.end),
            None => {}
        }
        self.files.push((number, file, scan.end));
        Ok(())
    }

    fn all(&self, number: u32) -> io::Result<(Arc<dyn DiskFile>, Vec<u8>)> {
        let file = self.disk.open(&segment::file_name(number))?;
        let bytes = u32::try_from(file.len()?)
            .map_err(|_| io::Error::other("a segment is larger than 4 GiB"))?;
        let mut all = vec![0; bytes as usize];
        file.read_at(&mut all, 0)?;
        Ok((file, all))
    }

    fn failed(&self, source: io::Error) -> OpenError {
        OpenError::Io {
            path: self.disk.path().to_owned(),
            source,
        }
    }

    fn missing(&self, number: u32) -> OpenError {
        let found = "the file is missing";
        self.damaged(number, Damage { offset: 0, found })
    }

    fn damaged(&self, number: u32, Damage { offset, found }: Damage) -> OpenError {
        OpenError::Damaged {
            file: self.disk.path().join(segment::file_name(number)),
            offset,
            found,
        }
    }
}

impl Segments {
    /// Reads the body of the record at this place.
    pub(super) fn read(&self, place: Place) -> Result<Vec<u8>, Unreadable> {
        let file = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&place.segment)
            .cloned();
        let file = file.ok_or_else(|| Unreadable::Io {
            place,
            source: io::ErrorKind::NotFound.into(),
        })?;
        read(file.as_ref(), place)
    }

    /// The file of a segment, which stays readable when the segment is released.
    pub(super) fn file(&self, number: u32) -> Option<Arc<dyn DiskFile>> {
        let files = self.0.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&number).cloned()
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<u32, Arc<dyn DiskFile>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a segment, on disk before it is used.
fn create(disk: &dyn Disk, number: u32, previous_bytes: u32) -> io::Result<Arc<dyn DiskFile>> {
    let file = disk.create(&segment::file_name(number))?;
    file.write_at(&segment::head(number, previous_bytes), 0)?;
    file.sync()?;
    disk.sync_directory()?;
    Ok(file)
}

/// Reads the body of a record.
pub(super) fn read(file: &dyn DiskFile, place: Place) -> Result<Vec<u8>, Unreadable> {
    let mut bytes = vec![0; place.bytes as usize];
    file.read_at(&mut bytes, u64::from(place.offset))
        .map_err(|source| Unreadable::Io { place, source })?;
    match segment::body(&bytes, place) {
        Some(body) => {
            let start = bytes.len() - body.len();
            bytes.drain(..start);
            Ok(bytes)
        }
        None => Err(Unreadable::Damaged(place)),
    }
}

fn numbers(disk: &dyn Disk) -> io::Result<Vec<u32>> {
    let names = disk.list()?;
    let mut numbers: Vec<u32> = names
        .iter()
        .filter_map(|name| segment::number(name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}
