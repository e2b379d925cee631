//! Who is woken where: `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, on or off.
//!
//! On, a trapped call hands its CPU straight to the receiver and the answer hands it back: the fastest there is
//! while one call is in flight at a time. While many are, it pulls everybody onto one CPU. Which of the two wins
//! depends on the number of children, on what they do between calls, on the handler and on the machine, so
//! the adaptive policy tries both and compares.

use std::time::{Duration, Instant};

use crate::kernel::KernelSupport;

/// How the kernel wakes the receiver of a call and the target of an answer.
///
/// # Kernel support
///
/// Since Linux 6.6; before that all of these mean [`WakeUp::Asynchronous`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum WakeUp {
    /// Measures both ways now and then, and keeps to the faster one.
    #[default]
    Adaptive,
    /// Always hands the CPU over: best while one call is in flight at a time.
    Synchronous,
    /// Always lets the scheduler choose: best while many calls are in flight on many CPUs.
    Asynchronous,
}

/// The policy of a supervisor or a lone listener. Its channels read [`synchronous`](Self::synchronous).
#[derive(Debug)]
pub(crate) struct WakeControl {
    mode: WakeUp,
    adaptive: Adaptive,
    /// Calls received since the clock was last read.
    received: u32,
}

impl WakeControl {
    pub(crate) fn new() -> Self {
        Self {
            mode: WakeUp::default(),
            adaptive: Adaptive::new(),
            received: 0,
        }
    }

    pub(crate) fn set_mode(&mut self, mode: WakeUp) {
        self.mode = mode;
    }

    /// The setting that listeners should have now.
    pub(crate) fn synchronous(&self) -> bool {
        KernelSupport::get().sync_wake_up
            && match self.mode {
                WakeUp::Adaptive => self.adaptive.synchronous,
                WakeUp::Synchronous => true,
                WakeUp::Asynchronous => false,
            }
    }

    /// Counts a call that was received through one of `listeners` channels.
    pub(crate) fn received(&mut self, listeners: usize) {
        self.received += 1;
        if self.received == CHUNK {
            self.received = 0;
            if self.mode == WakeUp::Adaptive {
                self.adaptive.chunk(Instant::now(), listeners);
            }
        }
    }
}

/// Calls between two looks at the clock.
const CHUNK: u32 = 16;
/// Chunks that a measurement takes; its result is their median, which a preempted chunk doesn't move.
const SAMPLES: usize = 7;
/// The first comparison: so late that short programs never pay for one.
const FIRST_HOLD: Duration = Duration::from_millis(3);
/// A setting stays for so many times what the last comparison took: its cost is bounded to a few percent.
const HOLD_FACTOR: u32 = 40;
const HOLD: std::ops::RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(2);
/// A chunk this long says that the targets were idle, not that the wake-up was slow.
const IDLE: Duration = Duration::from_millis(200);
/// The other setting must be faster by this to be taken: hysteresis against noise.
const GAIN: f64 = 0.95;
/// A chunk that is slower by this ends a trial at once.
const HOPELESS: u32 = 4;

/// Compares the two settings: measure the present one, try the other one, keep the faster, hold, again.
#[derive(Debug)]
struct Adaptive {
    synchronous: bool,
    last: Option<Instant>,
    phase: Phase,
    hold: Duration,
}

#[derive(Debug)]
enum Phase {
    /// Leaves everything alone until then; `None` until the first call.
    Hold(Option<Instant>),
    /// Measures the setting that holds.
    Baseline(Samples),
    /// Has switched; waits until the switch has reached the listeners, each of which applies it when it is drained.
    Settle {
        chunks: usize,
        baseline: Duration,
        began: Instant,
    },
    /// Measures the setting that is on trial.
    Trial {
        samples: Samples,
        baseline: Duration,
        began: Instant,
    },
}

#[derive(Debug, Default)]
struct Samples {
    taken: [Duration; SAMPLES],
    len: usize,
}

impl Samples {
    /// Adds one; gives the median of all once there are enough.
    fn add(&mut self, sample: Duration) -> Option<Duration> {
        self.taken[self.len] = sample;
        self.len += 1;
        if self.len < SAMPLES {
            return None;
        }
        self.taken.sort_unstable();
        Some(self.taken[SAMPLES / 2])
    }
}

impl Adaptive {
    fn new() -> Self {
        Self {
            synchronous: true,
            last: None,
            phase: Phase::Hold(None),
            hold: *HOLD.start(),
        }
    }

    /// Takes note that `CHUNK` calls were received since the last time.
    fn chunk(&mut self, now: Instant, listeners: usize) {
        let took = self
            .last
            .replace(now)
            .map(|last| now.saturating_duration_since(last));
        let Some(took) = took.filter(|took| *took < IDLE) else {
            self.restart(now);
            return;
        };
        match &mut self.phase {
            Phase::Hold(until) => {
                if now >= *until.get_or_insert(now + FIRST_HOLD) {
                    self.phase = Phase::Baseline(Samples::default());
                }
            }
            Phase::Baseline(samples) => {
                if let Some(baseline) = samples.add(took) {
                    self.synchronous = !self.synchronous;
                    let chunks = 1 + 2 * listeners / CHUNK as usize;
                    self.phase = Phase::Settle {
                        chunks,
                        baseline,
                        began: now,
                    };
                }
            }
            Phase::Settle {
                chunks,
                baseline,
                began,
            } => {
                let (baseline, began) = (*baseline, *began);
                *chunks -= 1;
                if *chunks == 0 {
                    self.phase = Phase::Trial {
                        samples: Samples::default(),
                        baseline,
                        began,
                    };
                }
            }
            Phase::Trial {
                samples,
                baseline,
                began,
            } => {
                let (baseline, began) = (*baseline, *began);
                let measured = samples.add(took);
                let hopeless = took > baseline * HOPELESS && samples.len >= 2;
                if hopeless || measured.is_some() {
                    let better = measured.is_some_and(|trial| trial < baseline.mul_f64(GAIN));
                    self.decide(better && !hopeless, now, now.saturating_duration_since(began));
                }
            }
        }
    }

    /// Ends a trial, which began with the other setting.
    fn decide(&mut self, better: bool, now: Instant, took: Duration) {
        let bounded = |hold: Duration| hold.clamp(*HOLD.start(), *HOLD.end());
        if better {
            self.hold = bounded(took * HOLD_FACTOR);
        } else {
            self.synchronous = !self.synchronous;
            self.hold = bounded((took * HOLD_FACTOR).max(self.hold * 2));
        }
        self.phase = Phase::Hold(Some(now + self.hold));
    }

    /// Forgets a measurement that an idle time spoiled.
    fn restart(&mut self, now: Instant) {
        match self.phase {
            Phase::Hold(_) => {}
            Phase::Baseline(_) => self.phase = Phase::Baseline(Samples::default()),
            Phase::Settle { .. } | Phase::Trial { .. } => {
                self.synchronous = !self.synchronous;
                self.phase = Phase::Hold(Some(now + self.hold));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the policy for `duration` of simulated time against a cost per call of each setting, and gives the
    /// ratio of the time taken to that of the better setting.
    fn simulate(duration: Duration, cost: impl Fn(bool, Duration) -> Duration) -> f64 {
        let start = Instant::now();
        let mut policy = Adaptive::new();
        let (mut elapsed, mut ideal) = (Duration::ZERO, Duration::ZERO);
        while elapsed < duration {
            let best = cost(true, elapsed).min(cost(false, elapsed));
            elapsed += cost(policy.synchronous, elapsed) * CHUNK;
            ideal += best * CHUNK;
            policy.chunk(start + elapsed, 8);
        }
        elapsed.as_secs_f64() / ideal.as_secs_f64()
    }

    #[test]
    fn the_policy_stays_near_the_better_setting() {
        let micros = Duration::from_micros;
        for (on, off) in [
            (5, 134),
            (52, 92),
            (4, 12),
            (16, 11),
            (17, 13),
            (93, 66),
            (10, 10),
        ] {
            let ratio = simulate(Duration::from_secs(5), |synchronous, _| {
                micros(if synchronous { on } else { off })
            });
            assert!(ratio < 1.05, "on {on} off {off}: {ratio}");
        }
    }

    #[test]
    fn the_policy_follows_a_change() {
        let change = Duration::from_secs(5);
        let ratio = simulate(2 * change, |synchronous, elapsed| {
            Duration::from_micros(if synchronous == (elapsed < change) { 10 } else { 20 })
        });
        assert!(ratio < 1.25, "{ratio}");
    }

    #[test]
    fn idle_targets_leave_the_setting_alone() {
        let start = Instant::now();
        let mut policy = Adaptive::new();
        for second in 0..1000 {
            policy.chunk(start + Duration::from_secs(second), 1);
            assert!(policy.synchronous);
        }
    }

    #[test]
    fn one_slow_chunk_decides_nothing() {
        let start = Instant::now();
        let mut policy = Adaptive::new();
        let mut now = start;
        for chunk in 0..100_000_u32 {
            let cost = if policy.synchronous { 80 } else { 2000 };
            now += Duration::from_micros(if chunk % 5 == 0 { cost * 20 } else { cost });
            policy.chunk(now, 1);
        }
        assert!(
            policy.synchronous || !matches!(policy.phase, Phase::Hold(_)),
            "{policy:?}"
        );
    }
}
