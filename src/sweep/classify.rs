//! What a run came to, next to those without a fault.

use super::case::Case;
use super::learn::Learned;
use super::run::{Ran, first_hit};
use super::trial::{Ending, FileChange, Trial, Verdict, micros};

/// How much of a message is kept, and how many files and threads.
const MESSAGE: usize = 2048;
const LISTED: usize = 32;
/// Of these die programs that have gone wrong.
const FAULTS: [i32; 7] = [
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGSYS,
];

pub(super) fn classify(case: &Case, ran: &Ran, learned: &Learned) -> Trial {
    let ending = Ending::of(&ran.outcome);
    let output_differs = match &learned.stdout {
        Some(stdout) => *stdout != ran.stdout,
        // What is different each time is there each time.
        None => learned.has_stdout && ran.stdout.is_empty(),
    };
    let mut changes = ran.after.changes(&learned.files, &learned.volatile);
    changes.extend(ran.after.lost(&learned.filled));
    let extra = ran
        .after
        .extra(&learned.pristine, &learned.files, &learned.volatile);
    let complains = is_new(&ran.stderr, &learned.stderr);
    // Some programs have their errors in their output.
    let says_more = complains || is_new(&ran.stdout, learned.stdout.as_deref().unwrap_or_default());
    let verdict = match ending {
        _ if first_hit(&ran.outcome).is_none() => Verdict::NotReached,
        Ending::Hung => Verdict::Hang,
        ending if is_crash(ending) && ending != learned.baseline.ending => Verdict::Crash,
        ending if ending == learned.baseline.ending && !output_differs && changes.is_empty() => Verdict::Same,
        _ if !extra.is_empty() && extra.len() == changes.len() && !output_differs => Verdict::Leak,
        // What some programs say when they succeed is not 0. Their output is no message then.
        ending if ending == learned.baseline.ending && !complains => Verdict::SilentFailure,
        Ending::Exited(0) => Verdict::SilentFailure,
        _ if !extra.is_empty() => Verdict::Leak,
        _ if says_more => Verdict::CleanFailure,
        _ => Verdict::MuteFailure,
    };
    let files = match verdict {
        Verdict::Leak => extra,
        _ => changes,
    };
    let hung = ran.outcome.hung().unwrap_or_default().iter();
    Trial {
        case: case.clone(),
        verdict,
        steady: true,
        ending,
        output_differs,
        message: excerpt(&ran.stderr),
        file: ran.file.clone(),
        files: first(files),
        hung: hung.take(LISTED).map(ToString::to_string).collect(),
        duration: micros(ran.outcome.duration()),
    }
}

/// A signal, or the status by which a shell says that its child has died of one that faults cause.
fn is_crash(ending: Ending) -> bool {
    match ending {
        Ending::Signaled(_) => true,
        Ending::Exited(code) => FAULTS.contains(&(code - 128)),
        Ending::Hung => false,
    }
}

/// Whether there is anything in a stream that is not there without the fault.
fn is_new(now: &[u8], undisturbed: &[u8]) -> bool {
    !undisturbed.starts_with(now)
}

fn excerpt(message: &[u8]) -> String {
    String::from_utf8_lossy(&message[..message.len().min(MESSAGE)]).into_owned()
}

fn first(mut files: Vec<FileChange>) -> Vec<FileChange> {
    files.truncate(LISTED);
    files
}
