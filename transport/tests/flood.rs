//! Thousands of connections that never prove themselves do not keep a real launcher out.

#[expect(dead_code, reason = "each test program uses its part")]
mod common;

use std::collections::VecDeque;

use common::{PATIENCE, address, dialer, gate, hello, port, welcome};
use muster_protocol::limits::UNPROVEN_CONNECTIONS_MAX;
use muster_transport::gate::Reason;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

const CONNECTIONS: usize = 2_000;
/// Held open at the same time on the attacker's side; more than the gate holds.
const HELD: usize = 2 * UNPROVEN_CONNECTIONS_MAX;

#[tokio::test]
async fn two_thousand_half_open_connections_and_then_a_launcher() {
    let mut gate = gate("a");
    let (target, port, ledger) = (address(&gate), port(&gate), gate.ledger().clone());
    let attack = tokio::spawn(async move {
        let mut held = VecDeque::new();
        for n in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(target).await.unwrap();
            // Some say nothing at all, some begin as TLS does and stop.
            if n % 2 == 0 {
                let _ = stream.write_all(&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3]).await;
            }
            held.push_back(stream);
            if held.len() > HELD {
                held.pop_front();
            }
        }
        held
    });
    // The gate works while the attack goes on; half-way through it is as full as it gets.
    let said = hello("a", 1);
    let launcher = async {
        while ledger.accepted() < CONNECTIONS as u64 / 2 {
            tokio::task::yield_now().await;
        }
        dialer("a").dial("127.0.0.1", port, &said, PATIENCE).await.unwrap()
    };
    let tasks = TaskTracker::new();
    let serve = async {
        let guest = gate.next().await;
        guest.welcome(welcome(), 4, &tasks)
    };
    let (_dialed, _served) = tokio::join!(launcher, serve);
    assert!(ledger.refused(Reason::Displaced) > 0);
    assert!(gate.unproven() <= UNPROVEN_CONNECTIONS_MAX);

    // And again when all of them just sit there.
    let held = tokio::select! {
        held = attack => held.unwrap(),
        guest = gate.next() => panic!("let in: {:?}", guest.hello),
    };
    let again = dialer("a");
    let serve = async { gate.next().await.welcome(welcome(), 4, &tasks) };
    let (dialed, _served) = tokio::join!(again.dial("127.0.0.1", port, &said, PATIENCE), serve);
    dialed.unwrap();
    assert!(gate.unproven() <= UNPROVEN_CONNECTIONS_MAX);
    assert!(ledger.accepted() >= CONNECTIONS as u64);
    drop(held);
}
