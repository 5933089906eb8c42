//! Room on the disk for the day on which there is none.
//!
//! Whatever ends a delivery needs a little room on the disk until it gives more of it back. So a file is kept that is removed when
//! the disk is full, and nothing new is accepted until it is there again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::disk::Disk;

const FILE: &str = "reserve";
/// Enough for the ends of some ten thousand deliveries, and a new segment.
const BYTES: usize = 1 << 20;

/// It is a write of that size, so it is not tried again at once.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Reserve {
    disk: Arc<dyn Disk>,
    is_there: bool,
    /// When it was given away, or could not be made.
    missed: Option<Instant>,
}

impl Reserve {
    /// Makes the file where there is room for it.
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        let mut reserve = Self {
            disk,
            is_there: false,
            missed: None,
        };
        // Without it, nothing is accepted: whoever tries to is told why.
        let _ = reserve.regain(false);
        reserve
    }

    /// Makes the file if it is missing, unless the room is `needed` for something else.
    pub(super) fn regain(&mut self, needed: bool) -> io::Result<()> {
        if self.is_there {
            return Ok(());
        }
        let is_early = |missed: Instant| missed.elapsed() < PAUSE;
        if needed || self.missed.is_some_and(is_early) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let made = self.make();
        if made.is_err() {
            // A part of it is no use.
            let _ = self.disk.remove(FILE);
            self.missed = Some(Instant::now());
        }
        self.is_there = made.is_ok();
        made
    }

    /// Whether the file is there.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Gives the room away, if the disk is full and it has not been given away before.
    pub(super) fn spend(&mut self, error: &io::Error) {
        let is_full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        if is_full && self.is_there {
            self.is_there = self.disk.remove(FILE).is_err();
            self.missed = Some(Instant::now());
        }
    }

    fn make(&self) -> io::Result<()> {
        let file = match self.disk.open(FILE) {
            Ok(file) => file,
            Err(_) => self.disk.create(FILE)?,
        };
        if file.len()? != BYTES as u64 {
            // Written, as a file that is only long takes no room.
            file.set_len(0)?;
            file.write_at(&vec![0; BYTES], 0)?;
            file.sync()?;
        }
        Ok(())
    }
}
