//! Names through the files and through a small DNS server on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_transport::resolve::{ResolveError, Resolver, Sources};
use tokio::net::UdpSocket;

/// Answers A queries for one name; everything else does not exist. Counts queries.
struct Dns {
    port: u16,
    queries: Arc<AtomicUsize>,
    known: Arc<std::sync::Mutex<Vec<(String, Ipv4Addr)>>>,
}

async fn dns(known: &[(&str, Ipv4Addr)]) -> Dns {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let queries = Arc::new(AtomicUsize::new(0));
    let known: Vec<_> = known.iter().map(|(name, ip)| ((*name).to_owned(), *ip)).collect();
    let known = Arc::new(std::sync::Mutex::new(known));
    let (counter, names) = (queries.clone(), known.clone());
    tokio::spawn(async move {
        let mut query = [0; 1_500];
        while let Ok((len, from)) = socket.recv_from(&mut query).await {
            counter.fetch_add(1, Ordering::Relaxed);
            let reply = answer(&query[..len], &names.lock().unwrap());
            socket.send_to(&reply, from).await.unwrap();
        }
    });
    Dns { port, queries, known }
}

fn answer(query: &[u8], known: &[(String, Ipv4Addr)]) -> Vec<u8> {
    let (mut name, mut at) = (String::new(), 12);
    while query[at] != 0 {
        let label = &query[at + 1..at + 1 + query[at] as usize];
        name.push_str(&String::from_utf8_lossy(label).to_lowercase());
        name.push('.');
        at += 1 + label.len();
    }
    let is_a = query[at + 1..at + 3] == [0, 1];
    let found = known.iter().find(|(n, _)| *n == name).map(|(_, ip)| *ip);
    let mut reply = query[..2].to_vec();
    let code = if found.is_some() { 0 } else { 3 };
    reply.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(is_a && found.is_some()), 0, 0, 0, 0]);
    reply.extend(&query[12..at + 5]);
    if let Some(ip) = found.filter(|_| is_a) {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(ip.octets());
    }
    reply
}

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(hosts: Option<&str>, resolv_conf: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("hosts", hosts), ("resolv.conf", resolv_conf)] {
            if let Some(text) = text {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
        }
        Self { dir }
    }

    fn resolver(&self, dns_port: u16) -> Resolver {
        let path = |name| self.dir.path().join(name);
        Resolver::new(Sources { hosts: path("hosts"), resolv_conf: path("resolv.conf"), dns_port })
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn an_empty_root_file_system_still_knows_addresses_and_localhost() {
    let files = Files::new(None, None);
    let resolver = files.resolver(53);
    assert_eq!(resolver.resolve("10.1.2.3").await.unwrap(), [ip("10.1.2.3")]);
    assert_eq!(resolver.resolve("[fd00::7]").await.unwrap(), [ip("fd00::7")]);
    assert_eq!(resolver.resolve("LOCALHOST").await.unwrap(), [ip("127.0.0.1"), ip("::1")]);
    let error = resolver.resolve("worker-3").await.unwrap_err();
    assert!(error.retryable());
    let dir = files.dir.path().display();
    assert_eq!(
        error.to_string(),
        format!(
            "no address for \"worker-3\": it is not in {dir}/hosts, and {dir}/resolv.conf names no DNS server (No such file or directory (os error 2))"
        )
    );
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_is_read_again_when_it_changes() {
    let files = Files::new(Some("10.0.0.7 worker-0\n10.9.9.9 localhost\n"), None);
    let resolver = files.resolver(53);
    assert_eq!(resolver.resolve("worker-0").await.unwrap(), [ip("10.0.0.7")]);
    assert_eq!(resolver.resolve("localhost").await.unwrap(), [ip("10.9.9.9")]);
    std::fs::write(files.dir.path().join("hosts"), "10.0.0.8 worker-0 worker-0.training\n").unwrap();
    assert_eq!(resolver.resolve("worker-0").await.unwrap(), [ip("10.0.0.8")]);
}

#[tokio::test]
async fn dns_is_asked_with_the_search_list_and_nothing_is_remembered() {
    let server = dns(&[("worker-1.job.svc.cluster.test.", Ipv4Addr::new(10, 0, 0, 1))]).await;
    let conf = "search svc.cluster.test cluster.test\nnameserver 127.0.0.1\noptions ndots:5 timeout:2\n";
    let files = Files::new(None, Some(conf));
    let resolver = files.resolver(server.port);
    assert_eq!(resolver.resolve("worker-1.job").await.unwrap(), [ip("10.0.0.1")]);
    let asked = server.queries.load(Ordering::Relaxed);
    assert_eq!(resolver.resolve("worker-1.job").await.unwrap(), [ip("10.0.0.1")]);
    assert!(server.queries.load(Ordering::Relaxed) > asked, "an answer was kept");

    let error = resolver.resolve("worker-2.job").await.unwrap_err();
    assert!(matches!(error, ResolveError::Unknown { .. }), "{error}");
    assert!(error.to_string().ends_with("and DNS does not know it (search list tried)"), "{error}");
    server.known.lock().unwrap().push(("worker-2.job.svc.cluster.test.".into(), Ipv4Addr::new(10, 0, 0, 2)));
    assert_eq!(resolver.resolve("worker-2.job").await.unwrap(), [ip("10.0.0.2")]);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_as_such() {
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(address) = closed.local_addr().unwrap() else { panic!("an IPv4 address") };
    drop(closed);
    let files = Files::new(None, Some("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"));
    let error = files.resolver(address.port()).resolve("worker-3").await.unwrap_err();
    assert!(matches!(error, ResolveError::Dns { .. }), "{error}");
    assert!(error.retryable());
}

#[tokio::test]
async fn what_cannot_be_a_name_is_not_asked_for() {
    let files = Files::new(None, None);
    let error = files.resolver(53).resolve("worker 3").await.unwrap_err();
    assert!(matches!(error, ResolveError::BadName { .. }) && !error.retryable(), "{error}");
}
