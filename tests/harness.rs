//! A Tokio server under test, with faults in it while a client talks to it.
//!
//! The server is this test program once more. It keeps what it is told in a file, which it brings to the disk before it says
//! so.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use asm_tracer::inject::{Fault, FaultPlan, FaultyChild};
use asm_tracer::{Command, Errno, Stdio, Sysno};
use support::within;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const FILE: &str = "ASM_TRACER_TEST_FILE";

/// Not a test, unless it is run as the server.
#[test]
fn server() {
    if let (true, Some(file)) = (support::is_child(), std::env::var_os(FILE)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(serve(file.into()));
    }
}

/// A server as one would write it: it survives what goes wrong with one connection.
async fn serve(file: PathBuf) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("\nlistens on {}", listener.local_addr().unwrap());
    loop {
        match listener.accept().await {
            Ok((connection, _)) => drop(tokio::spawn(talk(connection, file.clone()))),
            Err(error) => {
                println!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

async fn talk(mut connection: TcpStream, file: PathBuf) -> std::io::Result<()> {
    let (reader, mut writer) = connection.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let done = match line.strip_prefix("put ") {
            Some(value) => put(&file, value).map(|()| "stored".to_owned()),
            None => std::fs::read_to_string(&file),
        };
        let answer = done.unwrap_or_else(|error| format!("error: {error}"));
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

fn put(file: &Path, value: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(file)?;
    file.write_all(value.as_bytes())?;
    file.sync_all()
}

struct Server {
    child: FaultyChild,
    address: String,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Server {
    /// Starts it under the plan, which is switched off until there is a client.
    async fn start(plan: &FaultPlan) -> Self {
        plan.disarm();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let rerun = support::rerun("server");
        let mut command = Command::new(rerun.get_program());
        command.args(rerun.get_args()).stdout(Stdio::piped());
        for (key, value) in rerun.get_envs() {
            command.env(key, value.unwrap());
        }
        command.env(FILE, &file);
        let mut child = within("the start", plan.spawn(&mut command)).await.unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = within("the address", lines.next_line()).await.unwrap().unwrap();
            if let Some(address) = line.strip_prefix("listens on ") {
                break address.to_owned();
            }
        };
        // What else it says must not fill the pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self {
            child,
            address,
            file,
            _directory: directory,
        }
    }

    async fn client(&self) -> Client {
        let connection = within("the connection", TcpStream::connect(&self.address))
            .await
            .unwrap();
        Client(BufReader::new(connection))
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    /// The server's answer; `None` if it closed the connection.
    async fn ask(&mut self, question: &str) -> Option<String> {
        let asked = self.0.write_all(format!("{question}\n").as_bytes()).await;
        let mut answer = String::new();
        let read = within("the answer", self.0.read_line(&mut answer)).await;
        match (asked, read) {
            (Ok(()), Ok(1..)) => Some(answer.trim_end().to_owned()),
            _ => None,
        }
    }
}

#[tokio::test]
async fn no_descriptor_is_left_for_a_connection() {
    let plan = FaultPlan::from(Fault::on(Sysno::accept4).error(Errno::EMFILE));
    let server = Server::start(&plan).await;
    let mut before = server.client().await;
    assert_eq!(before.ask("put 1").await.unwrap(), "stored");

    plan.arm();
    let mut late = server.client().await;
    let asking = tokio::spawn(async move { late.ask("get").await });
    for _ in 0..3 {
        let hit = within("the hit", plan.hit()).await.unwrap();
        assert_eq!(hit.call().sysno(), Some(Sysno::accept4));
    }
    // Who is connected already is served, and who is not waits.
    assert_eq!(before.ask("get").await.unwrap(), "1");
    assert!(!asking.is_finished());
    plan.disarm();
    assert_eq!(within("the answer", asking).await.unwrap().unwrap(), "1");
    within("the stop", server.child.stop())
        .await
        .unwrap()
        .assert_hit();
}

#[tokio::test]
async fn the_file_can_not_be_read() {
    let plan = FaultPlan::from(
        Fault::on(Sysno::read)
            .under(std::env::temp_dir())
            .nth(1)
            .error(Errno::EIO),
    );
    let server = Server::start(&plan).await;
    let mut client = server.client().await;
    assert_eq!(client.ask("put value").await.unwrap(), "stored");
    plan.arm();
    assert_eq!(
        client.ask("get").await.unwrap(),
        "error: Input/output error (os error 5)"
    );
    let hit = within("the hit", server.child.hit()).await.unwrap();
    assert_eq!(
        hit.call().file(),
        Some(&*std::fs::canonicalize(&server.file).unwrap())
    );
    assert_eq!(client.ask("get").await.unwrap(), "value");
    within("the stop", server.child.stop())
        .await
        .unwrap()
        .assert_hits(1);
}

#[tokio::test]
async fn short_reads_and_writes_lose_nothing() {
    let reads = Fault::on(Sysno::read).under(std::env::temp_dir()).short(1);
    let writes = Fault::on(Sysno::write).under(std::env::temp_dir()).short(3);
    let plan = FaultPlan::new().with(reads).with(writes);
    let server = Server::start(&plan).await;
    let mut client = server.client().await;
    plan.arm();
    assert_eq!(client.ask("put a longer value").await.unwrap(), "stored");
    assert_eq!(client.ask("get").await.unwrap(), "a longer value");
    let outcome = within("the stop", server.child.stop()).await.unwrap();
    // Five writes, and a read for each byte and the end.
    outcome.assert_hit().assert_hits(5 + 15);
}

#[tokio::test]
async fn a_connection_can_not_be_registered() {
    let plan = FaultPlan::from(Fault::on(Sysno::epoll_ctl).nth(1).error(Errno::ENOSPC));
    let server = Server::start(&plan).await;
    plan.arm();
    let mut unlucky = server.client().await;
    assert_eq!(unlucky.ask("get").await, None);
    let hit = within("the hit", server.child.hit()).await.unwrap();
    assert!(hit.to_string().contains("ENOSPC"), "{hit}");
    let mut next = server.client().await;
    assert_eq!(next.ask("put 1").await.unwrap(), "stored");
    within("the stop", server.child.stop())
        .await
        .unwrap()
        .assert_hits(1);
}

#[tokio::test]
async fn what_is_not_on_the_disk_is_not_called_stored() {
    let plan = FaultPlan::from(Fault::on(Sysno::fsync).error(Errno::EIO)).watch(Sysno::sendto);
    let server = Server::start(&plan).await;
    let mut client = server.client().await;
    plan.arm();
    assert_eq!(
        client.ask("put 1").await.unwrap(),
        "error: Input/output error (os error 5)"
    );
    plan.disarm();
    assert_eq!(client.ask("put 2").await.unwrap(), "stored");
    let outcome = within("the stop", server.child.stop()).await.unwrap();
    outcome.assert_hits(1);
    let hit = &outcome.hits()[0];
    assert_eq!(
        hit.followed_by().first().and_then(|call| call.sysno()),
        Some(Sysno::sendto),
        "{outcome}"
    );
}

#[tokio::test]
async fn a_slow_disk_holds_up_one_client_and_the_test_goes_on() {
    let plan = FaultPlan::from(Fault::on(Sysno::fsync).delay_before(Duration::from_millis(300)));
    let server = Server::start(&plan).await;
    let mut client = server.client().await;
    plan.arm();
    let start = std::time::Instant::now();
    let asking = client.ask("put 1");
    let (answer, hit) = futures::future::join(asking, server.child.hit()).await;
    assert_eq!((answer.unwrap(), hit.unwrap().occurrence()), ("stored".into(), 1));
    assert!(start.elapsed() >= Duration::from_millis(299));
    within("the stop", server.child.stop())
        .await
        .unwrap()
        .assert_hits(1);
}

#[tokio::test]
async fn a_server_that_waits_for_its_disk_tells_where_at_the_deadline() {
    let hour = Duration::from_secs(3600);
    let plan =
        FaultPlan::from(Fault::on(Sysno::fsync).delay_before(hour)).deadline(Duration::from_millis(200));
    let server = Server::start(&plan).await;
    let mut client = server.client().await;
    plan.arm();
    let asking = tokio::spawn(async move { client.ask("put 1").await });
    within("the hit", server.child.hit()).await.unwrap();
    let outcome = within("the outcome", server.child.outcome()).await.unwrap();
    let threads = outcome.hung().unwrap();
    let hangs = |call| {
        threads
            .iter()
            .any(|thread| thread.syscall().and_then(|call| call.sysno()) == Some(call))
    };
    assert!(hangs(Sysno::fsync), "{outcome}");
    assert_eq!(within("the end of the connection", asking).await.unwrap(), None);
}
