//! What becomes of a journal whose bytes are not those that were written.

use super::*;
use crate::backend::embedded::segment;

/// A journal of these many deliveries of two batches each, closed.
async fn journal(batches: u32) -> (SimDisk, Vec<Delivery>) {
    let disk = SimDisk::default();
    let queue = open(&disk);
    let mut sent = Vec::new();
    for _ in 0..batches {
        let batch = conformance::deliveries("f", 2);
        sent.extend(batch.clone());
        queue.enqueue(batch).await.unwrap();
    }
    drop(queue);
    (disk, sent)
}

/// Names and contents of all segments, oldest first.
fn segments(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    let names = disk.segments().into_iter();
    names
        .map(|name| (name.clone(), disk.content(&name)))
        .collect()
}

/// Where each record of a segment is.
fn records(name: &str, bytes: &[u8]) -> Vec<segment::Place> {
    let scan = segment::scan(bytes, segment::number(name).unwrap(), false);
    assert_eq!(scan.rest, None);
    scan.records.iter().map(|(place, _)| *place).collect()
}

fn refused(disk: &SimDisk) -> (String, u32, &'static str) {
    match try_open(disk) {
        Err(OpenError::Damaged {
            file,
            offset,
            found,
        }) => (
            file.file_name().unwrap().to_str().unwrap().to_owned(),
            offset,
            found,
        ),
        other => panic!("{other:?}"),
    }
}

/// A crash in the middle of a write, at whatever byte, costs what was not acknowledged and nothing else.
#[tokio::test]
async fn a_torn_tail_is_cut_off() {
    let (disk, sent) = journal(3).await;
    let (name, bytes) = segments(&disk).remove(0);
    let places = records(&name, &bytes);
    // The last record is the mark that says that all is on disk. The batch before it is the last one that is torn here.
    let last = places[places.len() - 2];
    for end in last.offset..last.offset + last.bytes {
        disk.replace(&name, bytes[..end as usize].to_vec());
        let queue = open(&disk.after_kill());
        assert_eq!(waiting(&queue).await, names(&sent[..4]), "cut at {end}");
        // What comes then is as good as any.
        queue.enqueue(sent[4..].to_vec()).await.unwrap();
        assert_eq!(waiting(&queue).await, names(&sent[4..]), "cut at {end}");
    }
    // Zeros, as some file systems leave them.
    let mut zeros = bytes[..last.offset as usize].to_vec();
    zeros.resize(bytes.len(), 0);
    disk.replace(&name, zeros);
    assert_eq!(waiting(&open(&disk.after_kill())).await, names(&sent[..4]));
}

/// Whatever bit of an acknowledged record is not what it was, the queue says so and touches nothing.
#[tokio::test]
async fn a_flipped_bit_is_refused() {
    let (disk, _) = journal(30).await;
    let all = segments(&disk);
    assert!(all.len() > 2, "{}", all.len());
    for (name, bytes) in &all {
        let places = records(name, bytes);
        let is_last = name == &all.last().unwrap().0;
        // The mark at the very end is not acknowledged.
        let count = places.len() - usize::from(is_last);
        for place in &places[..count] {
            for at in [0, 3, 5, 9, 13, 16, 17, place.bytes / 2, place.bytes - 1] {
                let mut flipped = bytes.clone();
                flipped[(place.offset + at) as usize] ^= 1 << (at % 8);
                disk.replace(name, flipped.clone());
                let (file, offset, _) = refused(&disk);
                assert_eq!((&file, offset), (name, place.offset), "byte {at}");
                assert_eq!(&disk.content(name), &flipped, "nothing is changed");
            }
        }
        for at in [0, 7, 8, 12, 16, 20] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            disk.replace(name, flipped);
            assert_eq!(&refused(&disk).0, name, "byte {at} of the head");
        }
        disk.replace(name, bytes.clone());
    }
    open(&disk);
}

#[tokio::test]
async fn a_missing_segment_is_refused() {
    let (disk, sent) = journal(40).await;
    let all = segments(&disk);
    for (name, _) in &all[..all.len() - 1] {
        let disk = disk.after_kill();
        disk.lose(name);
        let (file, offset, found) = refused(&disk);
        assert_eq!((&file, offset, found), (name, 0, "the file is missing"));
    }
    assert_eq!(waiting(&open(&disk)).await, names(&sent));
}

#[tokio::test]
async fn a_segment_that_is_cut_off_is_refused() {
    let (disk, _) = journal(40).await;
    let (name, bytes) = segments(&disk).remove(0);
    for place in records(&name, &bytes) {
        disk.replace(&name, bytes[..place.offset as usize].to_vec());
        let (file, offset, _) = refused(&disk);
        assert_eq!((&file, offset), (&name, place.offset));
    }
}

/// A crash while a segment begins leaves a file with a part of its head.
#[tokio::test]
async fn a_segment_that_never_began_is_begun_again() {
    let (disk, sent) = journal(40).await;
    let next = segment::file_name(u32::try_from(disk.segments().len()).unwrap() + 1);
    let head = segment::head(9, 100);
    for bytes in [0, 10, 23] {
        let disk = disk.after_kill();
        Disk::create(&disk, &next).unwrap();
        disk.replace(&next, head[..bytes].to_vec());
        disk.lose(&next);
        Disk::create(&disk, &next).unwrap();
        disk.replace(&next, head[..bytes].to_vec());
        let queue = open(&disk);
        assert_eq!(waiting(&queue).await, names(&sent));
        let more = conformance::deliveries("f", 1);
        queue.enqueue(more.clone()).await.unwrap();
        drop(queue);
        assert_eq!(open(&disk.after_kill()).stats().waiting, sent.len() + 1);
    }
    // Of the very first one, too.
    let disk = SimDisk::default();
    Disk::create(&disk, &segment::file_name(1)).unwrap();
    assert_eq!(open(&disk).stats(), Stats::default());
}

/// An operator who reads the message knows where to look and what to do.
#[tokio::test]
async fn the_message_names_the_file_and_the_way_out() {
    let (disk, _) = journal(40).await;
    let (name, mut bytes) = segments(&disk).remove(0);
    bytes[100] ^= 1;
    disk.replace(&name, bytes);
    let message = try_open(&disk).unwrap_err().to_string();
    for part in [
        "/simulated/00000001.segment at byte 24",
        "does not match its checksum",
        "nothing is deleted",
        "restore /simulated from a copy, or move it away",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

/// A node that was taken back to an older version says so, instead of calling the files damaged.
#[tokio::test]
async fn a_later_format_is_named() {
    let (disk, _) = journal(1).await;
    let (name, mut bytes) = segments(&disk).remove(0);
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..20]);
    bytes[20..24].copy_from_slice(&crc.to_le_bytes());
    disk.replace(&name, bytes);
    let refused = try_open(&disk).unwrap_err();
    assert!(
        matches!(refused, OpenError::Format { format: 2, .. }),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .contains("start the version that wrote it")
    );
}
