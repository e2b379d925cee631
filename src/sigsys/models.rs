//! Models of the ring and of its reader's sleep: no order of steps loses a record uncounted, or a wake-up.

use std::sync::Arc;

use loom::thread;

use super::doorbell::Doorbell;
use super::ring::{Next, Reader, Record, Ring};

impl Record for u32 {}

fn bounded() -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder
}

/// Two writers, each with two records, on a ring of two.
#[test]
fn loom_attempts_are_delivered_or_dropped() {
    bounded().check(|| {
        let ring = Arc::new(Ring::new(2, 0));
        let writers: Vec<_> = [10, 20]
            .into_iter()
            .map(|base| {
                let ring = Arc::clone(&ring);
                thread::spawn(move || {
                    let mut written = 0;
                    for number in 1..=2 {
                        written += u64::from(ring.push(base, |_| base + number));
                    }
                    written
                })
            })
            .collect();
        let mut reader = Reader::default();
        let mut read = Vec::new();
        for _ in 0..2 {
            if let Next::Record(record) = reader.next(&ring) {
                read.push(record);
            }
        }
        let written: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        while let Next::Record(record) = reader.next(&ring) {
            read.push(record);
        }
        assert_eq!(read.len() as u64, written);
        assert_eq!(ring.attempts(), 4);
        assert_eq!(ring.dropped(), 4 - written);
        for base in [10, 20] {
            let of_one = read.iter().filter(|record| **record / 10 * 10 == base);
            assert!(of_one.is_sorted());
        }
    });
}

/// The reader sleeps only while there is nothing, and is woken by whoever writes then.
#[test]
fn loom_a_sleeping_reader_is_woken() {
    bounded().check(|| {
        let ring = Arc::new(Ring::new(4, 0));
        let bell = Arc::new(Doorbell::new());
        let writers: Vec<_> = [1, 2]
            .into_iter()
            .map(|writer| {
                let (ring, bell) = (Arc::clone(&ring), Arc::clone(&bell));
                thread::spawn(move || {
                    assert!(ring.push(writer, |_| writer));
                    bell.ring();
                })
            })
            .collect();
        let mut reader = Reader::default();
        let mut read = 0;
        while read < 2 {
            match reader.next(&ring) {
                Next::Record(_) => read += 1,
                _ => bell.sleep(None, || reader.has_next(&ring)),
            }
        }
        for writer in writers {
            writer.join().unwrap();
        }
    });
}
