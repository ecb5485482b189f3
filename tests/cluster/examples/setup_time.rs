#![forbid(unsafe_code)]
//! Measures how long clusters take to make and to end: `cargo run --release -p muster-cluster --example setup_time`.

use std::io::Write;
use std::time::Instant;

use muster_cluster::{Cluster, Cmd};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::stdout();
    for hosts in [4, 16, 64, 128] {
        let begun = Instant::now();
        let cluster = Cluster::builder().hosts(hosts).start()?;
        let made = begun.elapsed();
        let begun = Instant::now();
        for index in 0..hosts {
            cluster.host(index).run(Cmd::new("true"))?.ok()?;
        }
        let run = begun.elapsed() / u32::try_from(hosts)?;
        let begun = Instant::now();
        drop(cluster);
        writeln!(out, "{hosts:4} hosts: made in {made:?}, one `true` in {run:?}, ended in {:?}", begun.elapsed())?;
    }
    Ok(())
}
