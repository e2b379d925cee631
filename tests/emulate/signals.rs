//! Signals, which end what the kernel would interrupt and nothing else.

use asm_tracer::Command;

use crate::common::emulated;
use crate::support::target::{killable, program};

// T9: a call that is made again after it was performed would find its own file.
#[tokio::test]
async fn a_storm_of_signals_does_not_have_files_made_twice() {
    const STORM: &str = r#"
        #include <sys/stat.h>
        int main(void) {
            char name[32];
            handle_signal(SIGALRM, SA_RESTART);
            ualarm(1000, 1000);
            for (int i = 0; i < 300 || handled < 5; i++) {
                snprintf(name, sizeof name, "file%d", i);
                int fd = open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
                check(fd >= 0 && !close(fd), "open");
            }
        }
    "#;
    if !killable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(program("storm_of_signals", STORM));
    let (output, _) = emulated(command.current_dir(directory.path())).await;
    assert!(output.status.success(), "{output:?}");
}
