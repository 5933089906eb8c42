//! Ports that no other sandbox of this machine uses, also not by accident after a node was killed and before it is back.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::sync::Mutex;

/// Ports in a block. All blocks lie below the range that outgoing connections take theirs from (32768 on Linux).
const BLOCK_LEN: u16 = 64;
const FIRST: u16 = 12_000;
const BLOCKS: u16 = 250;

/// A block of ports, reserved by a file lock for as long as this value lives.
#[derive(Debug)]
pub struct Ports {
    number: u16,
    next: Mutex<u16>,
    _lock: File,
}

impl Ports {
    /// Reserves a block.
    ///
    /// # Panics
    /// When all blocks are taken or the lock files can not be written.
    pub fn reserve() -> Self {
        let locks = std::env::temp_dir().join("hearth-test-ports");
        std::fs::create_dir_all(&locks).expect("make the directory of port locks");
        // Processes start looking at different blocks, so that a port just given back rests a while.
        let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).expect("below BLOCKS");
        for step in 0..BLOCKS {
            let number = (start + step) % BLOCKS;
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(locks.join(number.to_string()))
                .expect("open a port lock");
            if lock.try_lock().is_ok() {
                return Self {
                    number,
                    next: Mutex::new(0),
                    _lock: lock,
                };
            }
        }
        panic!("all {BLOCKS} blocks of test ports are taken");
    }

    /// The block's number, unique among the sandboxes alive on this machine; below 250.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Takes the next port that is free for TCP and UDP.
    ///
    /// # Panics
    /// When the block is used up.
    pub fn take(&self) -> u16 {
        let mut next = self.next.lock().expect("no holder panics");
        while *next < BLOCK_LEN {
            let port = FIRST + self.number * BLOCK_LEN + *next;
            *next += 1;
            let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                return port;
            }
        }
        panic!("a sandbox has {BLOCK_LEN} ports, and all are taken");
    }
}
