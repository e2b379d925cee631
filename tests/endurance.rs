//! Ten thousand starts leave nothing behind, and a thousand children that are killed at any moment lose nothing.

mod support;

use std::collections::HashMap;
use std::time::Duration;

use asm_tracer::{Command, Delivery, Filter, Stdio, Supervisor, Sysno};
use support::{c_program, in_process_of_its_own, open_descriptors, proc_status, until, within};
use tokio::task::JoinSet;

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// What a process may leave behind.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    children: usize,
    mappings: usize,
}

impl Holdings {
    fn now() -> Self {
        let children = |task: std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("children")).unwrap_or_default()
        };
        let tasks = || std::fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
        Self {
            descriptors: open_descriptors(),
            threads: tasks().count(),
            children: tasks()
                .map(|task| children(task).split_whitespace().count())
                .sum(),
            mappings: std::fs::read_to_string("/proc/self/maps")
                .unwrap()
                .lines()
                .count(),
        }
    }
}

/// Resident memory, in kilobytes.
fn memory() -> u64 {
    let field = proc_status(std::process::id(), "VmRSS").unwrap();
    field.trim_end_matches(" kB").trim().parse().unwrap()
}

async fn start_many(supervisor: &mut Supervisor, program: &std::path::Path, starts: usize) {
    const AT_ONCE: usize = 4;
    let mut command = Command::new(program);
    let filter = Filter::new().trap(Sysno::exit_group);
    command
        .filter(filter)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    for _ in 0..starts / AT_ONCE {
        let mut children = Vec::new();
        for _ in 0..AT_ONCE {
            children.push(within("a spawn", supervisor.spawn(&mut command)).await.unwrap());
        }
        let mut calls = 0;
        while let Some(call) = within("a call", supervisor.next()).await {
            call.continue_syscall().unwrap();
            calls += 1;
        }
        assert_eq!(calls, AT_ONCE);
        for child in &mut children {
            assert!(within("an end", child.wait()).await.unwrap().success());
        }
    }
}

#[test]
fn ten_thousand_starts_leave_nothing_behind() {
    in_process_of_its_own("ten_thousand_starts_leave_nothing_behind", || {
        let program = c_program("nothing", "int main() { return 0; }");
        current_thread().block_on(async {
            let mut supervisor = Supervisor::new();
            start_many(&mut supervisor, &program, 1_000).await;
            let (before, memory_before) = (Holdings::now(), memory());
            start_many(&mut supervisor, &program, 9_000).await;
            let mut now = Holdings::now();
            until("all is as before", || {
                now = Holdings::now();
                now.descriptors == before.descriptors && now.children == 0 && now.threads <= before.threads
            })
            .await;
            // The allocator may split and join a few of its mappings.
            assert!(now.mappings <= before.mappings + 4, "{before:?} {now:?}");
            let grown = memory().saturating_sub(memory_before);
            assert!(grown < 1024, "{grown} kB more after 9 000 starts");
        });
    });
}

/// A small generator (xorshift), so that a failing run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn a_thousand_children_killed_at_random_moments_lose_nothing() {
    in_process_of_its_own(
        "a_thousand_children_killed_at_random_moments_lose_nothing",
        || {
            const CHILDREN: usize = 1_000;
            const AT_ONCE: usize = 20;
            let source = "
            #include <unistd.h>
            #include <sys/syscall.h>
            int main() { for (;;) syscall(SYS_getppid); }
        ";
            let program = c_program("getppid", source);
            current_thread().block_on(async {
                let mut random = Random(0x5eed_1234_5678_9abc);
                let mut supervisor = Supervisor::new();
                let spawner = supervisor.spawner();
                let (mut started, mut ended, mut calls, mut gone) = (0, 0, 0_u64, 0_u64);
                let mut lives = JoinSet::new();
                let mut live = |lives: &mut JoinSet<_>| {
                    let (spawner, program) = (spawner.clone(), program.clone());
                    let (moment, way) = (Duration::from_micros(random.below(6_000)), random.below(3));
                    lives.spawn(async move {
                        let mut command = Command::new(program);
                        command.filter(Filter::new().trap(Sysno::getppid));
                        if way == 0 {
                            // At any moment of its start, too: dropping the future kills.
                            let spawned = tokio::time::timeout(moment, spawner.spawn(&mut command)).await;
                            drop(spawned);
                            return;
                        }
                        let mut child = spawner.spawn(&mut command).await.unwrap();
                        // Not for a condition: the moment is to be any.
                        tokio::time::sleep(moment).await;
                        if way == 1 {
                            child.kill().await.unwrap();
                        }
                    });
                };
                // Calls that are answered late, so that children die while they are held.
                let mut held = HashMap::new();
                while ended < CHILDREN {
                    while started < CHILDREN && lives.len() < AT_ONCE {
                        live(&mut lives);
                        started += 1;
                    }
                    let step = async {
                        tokio::select! {
                            call = supervisor.next() => Some(call.unwrap()),
                            life = lives.join_next() => { life.unwrap().unwrap(); None }
                        }
                    };
                    let Some(call) = within("a call or an end", step).await else {
                        ended += 1;
                        continue;
                    };
                    calls += 1;
                    let earlier = held.insert(calls % 7, call);
                    let delivery = earlier.map(|call| call.respond(1).unwrap());
                    gone += u64::from(delivery == Some(Delivery::Gone));
                }
                drop(held);
                drop(spawner);
                while let Some(call) = within("the end of the stream", supervisor.next()).await {
                    call.respond(1).unwrap();
                }
                until("no child is left", || Holdings::now().children == 0).await;
                println!("{calls} calls, {gone} answers too late");
                assert!(calls > 100 && gone > 0, "{calls} {gone}");
            });
        },
    );
}
