//! Models of the hand-off from the wakers of other threads to the supervisor: no order of steps loses a wake-up.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use loom::sync::atomic::AtomicUsize;
use loom::thread;

use super::ready::{Ready, SlotWaker};

/// Takes events as `Supervisor::poll_next` does, until there were so many.
async fn consume(
    ready: Arc<Ready>,
    slots: Vec<Arc<SlotWaker>>,
    events: Arc<Vec<AtomicUsize>>,
    wanted: usize,
) {
    let (mut turn, mut taken) = (Vec::new(), 0);
    poll_fn(|cx| {
        loop {
            ready.collect(&mut turn, &mut Vec::new());
            if let Some(slot) = turn.pop() {
                slots[slot].dequeue();
                taken += events[slot].swap(0, Ordering::AcqRel);
                if taken == wanted {
                    return Poll::Ready(());
                }
            } else if ready.rest(cx.waker()) {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// With this many preemptions nearly all known races show, and the models end.
fn bounded() -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder
}

fn model(slots: usize, wakers: &'static [usize]) {
    bounded().check(move || {
        let ready = Arc::<Ready>::default();
        let slots: Vec<_> = (0..slots)
            .map(|slot| Arc::new(SlotWaker::new(Arc::clone(&ready), slot)))
            .collect();
        let events: Arc<Vec<_>> = Arc::new(slots.iter().map(|_| AtomicUsize::new(0)).collect());
        let threads: Vec<_> = wakers
            .iter()
            .map(|slot| {
                let (waker, events, slot) = (
                    std::task::Waker::from(Arc::clone(&slots[*slot])),
                    Arc::clone(&events),
                    *slot,
                );
                thread::spawn(move || {
                    events[slot].fetch_add(1, Ordering::AcqRel);
                    waker.wake();
                })
            })
            .collect();
        loom::future::block_on(consume(ready, slots, events, wakers.len()));
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn loom_one_slot_woken_twice_at_once() {
    model(1, &[0, 0]);
}

#[test]
fn loom_two_slots_woken_at_once() {
    model(2, &[0, 1]);
}

#[test]
fn loom_a_spawner_that_goes_ends_the_wait() {
    bounded().check(|| {
        let ready = Arc::<Ready>::default();
        ready.add_spawner();
        let last = Arc::clone(&ready);
        let thread = thread::spawn(move || last.remove_spawner());
        loom::future::block_on(poll_fn(|cx| {
            loop {
                ready.collect(&mut Vec::new(), &mut Vec::new());
                if ready.rest(cx.waker()) {
                    return if ready.expects_more() {
                        Poll::Pending
                    } else {
                        Poll::Ready(())
                    };
                }
            }
        }));
        thread.join().unwrap();
    });
}
