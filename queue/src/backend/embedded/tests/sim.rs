//! A disk that fails when it is told to, and crashes: what was not synced is there, or not, or in part.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

/// Cheap to clone; all clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(super) struct SimDisk(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    /// By number; a file that was removed is kept until a crash, as its removal may not be synced.
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    /// Operations that change something, so far.
    operations: u64,
    syncs: u64,
    fault: Option<Fault>,
    /// The bytes that all files may have.
    capacity: Option<usize>,
    is_dead: bool,
    are_syncs_held: bool,
}

#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// At this operation the machine stops.
    CrashAt(u64),
    /// This operation fails, and no other one.
    FailAt(u64),
    /// Whatever needs room fails; a write may be done in part.
    Full,
    /// Syncs fail, and what they should have written is lost by the next crash.
    NoSync,
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    number: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Write,
    Sync,
    Other,
}

impl SimDisk {
    pub(super) fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    pub(super) fn set_capacity(&self, bytes: usize) {
        self.state().capacity = Some(bytes);
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// The names of the journal's files, oldest first.
    pub(super) fn segments(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| name.ends_with(".segment"));
        names
    }

    /// The bytes of a file.
    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].now.clone()
    }

    /// Puts these bytes there, as if they had been there.
    pub(super) fn replace(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let number = state.names[name];
        state.files[number] = Content {
            now: bytes.clone(),
            synced: bytes,
        };
    }

    pub(super) fn forget_reserve(&self) {
        self.lose("reserve");
    }

    pub(super) fn lose(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.synced_names.remove(name);
    }

    /// The disk as the next process finds it after the machine failed: of what was not synced a part, as the seed says.
    pub(super) fn after_crash(&self, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let state = self.state();
        let mut names = state.synced_names.clone();
        for (name, number) in &state.names {
            if !names.contains_key(name) && random.random() {
                names.insert(name.clone(), *number);
            }
        }
        for name in state.synced_names.keys() {
            if !state.names.contains_key(name) && random.random() {
                names.remove(name);
            }
        }
        let files = state.files.iter().map(|file| {
            let now = file.torn(&mut random);
            Content {
                synced: now.clone(),
                now,
            }
        });
        let files = files.collect();
        Self::from(State {
            files,
            synced_names: names.clone(),
            names,
            ..State::default()
        })
    }

    /// The disk as the next process finds it after this one was killed: all that was written is there.
    pub(super) fn after_kill(&self) -> Self {
        let state = self.state();
        Self::from(State {
            files: state.files.clone(),
            names: state.names.clone(),
            synced_names: state.synced_names.clone(),
            ..State::default()
        })
    }

    /// Makes syncs wait until they may go on.
    pub(super) fn hold_syncs(&self, hold: bool) {
        self.state().are_syncs_held = hold;
        self.0.1.notify_all();
    }

    fn from(state: State) -> Self {
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// Begins an operation that changes something.
    fn change(&self, operation: Operation) -> Result<MutexGuard<'_, State>, io::Error> {
        let mut state = self.state();
        if state.is_dead {
            return Err(io::Error::other("the machine is down"));
        }
        state.operations += 1;
        let number = state.operations;
        match state.fault {
            Some(Fault::CrashAt(at)) if at == number => {
                state.is_dead = true;
                Err(io::Error::other("the machine stops"))
            }
            Some(Fault::FailAt(at)) if at == number => Err(io::Error::other("input/output error")),
            Some(Fault::Full) if operation == Operation::Write => {
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Fault::NoSync) if operation == Operation::Sync => {
                Err(io::Error::other("input/output error"))
            }
            _ => Ok(state),
        }
    }
}

impl State {
    /// Whether there is room to write so much there.
    fn room(&self, number: usize, offset: u64, bytes: usize) -> bool {
        let used: usize = self
            .names
            .values()
            .map(|number| self.files[*number].now.len())
            .sum();
        let end = usize::try_from(offset).unwrap() + bytes;
        let more = end.saturating_sub(self.files[number].now.len());
        self.capacity.is_none_or(|capacity| used + more <= capacity)
    }
}

impl Content {
    /// Of what is not synced: nothing, all, a beginning, or some sectors.
    fn torn(&self, random: &mut StdRng) -> Vec<u8> {
        match random.random_range(0..4) {
            0 => self.synced.clone(),
            1 => self.now.clone(),
            2 => {
                let shortest = self.synced.len().min(self.now.len());
                let end = random.random_range(shortest..=self.now.len());
                self.now[..end].to_vec()
            }
            _ => {
                let mut bytes = self.now.clone();
                for sector in 0..bytes.len().div_ceil(SECTOR) {
                    let range = sector * SECTOR..bytes.len().min((sector + 1) * SECTOR);
                    if random.random() {
                        for index in range {
                            bytes[index] = self.synced.get(index).copied().unwrap_or(0);
                        }
                    }
                }
                bytes
            }
        }
    }
}

impl Disk for SimDisk {
    fn path(&self) -> &Path {
        Path::new("/simulated")
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.change(Operation::Other)?;
        let number = match state.names.get(name).copied() {
            Some(number) => {
                state.files[number].now.clear();
                number
            }
            None => {
                state.files.push(Content::default());
                state.files.len() - 1
            }
        };
        state.names.insert(name.to_owned(), number);
        Ok(self.file(number))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let number = self.state().names.get(name).copied();
        Ok(self.file(number.ok_or(io::ErrorKind::NotFound)?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.change(Operation::Other)?;
        let removed = state.names.remove(name);
        removed
            .map(|_| ())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut state = self.change(Operation::Sync)?;
        state.synced_names = state.names.clone();
        Ok(())
    }
}

impl SimDisk {
    fn file(&self, number: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile {
            disk: self.clone(),
            number,
        })
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.number].now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        let start = usize::try_from(offset).unwrap();
        let bytes = state.files[self.number]
            .now
            .get(start..start + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let was_dead = self.disk.state().is_dead;
        let failed = match self.disk.change(Operation::Write) {
            Ok(state) => match state.room(self.number, offset, bytes.len()) {
                true => {
                    write(state, self.number, bytes, offset);
                    return Ok(());
                }
                false => io::ErrorKind::StorageFull.into(),
            },
            Err(error) => error,
        };
        // Half of it is there all the same.
        let half = &bytes[..bytes.len() / 2];
        let state = self.disk.state();
        if !was_dead && state.room(self.number, offset, half.len()) {
            write(state, self.number, half, offset);
        }
        Err(failed)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.change(Operation::Other)?;
        state.files[self.number]
            .now
            .resize(usize::try_from(bytes).unwrap(), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = self.disk.change(Operation::Sync)?;
        let mut state = self
            .disk
            .0
            .1
            .wait_while(state, |state| state.are_syncs_held)
            .unwrap();
        state.syncs += 1;
        let file = &mut state.files[self.number];
        file.synced = file.now.clone();
        Ok(())
    }
}

fn write(mut state: MutexGuard<'_, State>, number: usize, bytes: &[u8], offset: u64) {
    let offset = usize::try_from(offset).unwrap();
    let now = &mut state.files[number].now;
    now.resize(now.len().max(offset + bytes.len()), 0);
    now[offset..offset + bytes.len()].copy_from_slice(bytes);
}
