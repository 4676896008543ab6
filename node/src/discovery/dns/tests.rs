//! Lookups against a name server of the test's own.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
use hickory_resolver::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::A;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::*;

const FULL: &str = "chat-headless.ns.svc.cluster.local.";

/// Answers `FULL`'s A records with these addresses; the rest does not exist.
async fn server(answers: Arc<Mutex<Vec<Ipv4Addr>>>) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buf = [0; 1500];
        while let Ok((n, from)) = socket.recv_from(&mut buf).await {
            let query = Message::from_vec(&buf[..n]).unwrap();
            let mut reply = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
            reply.metadata.recursion_available = true;
            reply.metadata.recursion_desired = true;
            let asked = query.queries[0].clone();
            reply.add_query(asked.clone());
            if asked.name().to_ascii().eq_ignore_ascii_case(FULL) {
                if asked.query_type() == RecordType::A {
                    for ip in answers.lock().iter() {
                        let data = RData::A(A(*ip));
                        reply.add_answer(Record::from_rdata(asked.name().clone(), 5, data));
                    }
                }
            } else {
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            socket.send_to(&reply.to_vec().unwrap(), from).await.unwrap();
        }
    });
    port
}

fn dns(port: u16) -> Dns {
    let mut connection = ConnectionConfig::udp();
    connection.port = port;
    let server = NameServerConfig::new(Ipv4Addr::LOCALHOST.into(), true, vec![connection]);
    // As a pod's resolv.conf has it.
    let search = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"];
    let search = search.iter().map(|s| Name::from_str(s).unwrap()).collect();
    let config = ResolverConfig::from_parts(None, search, vec![server]);
    Dns { config: Some((config, 5)), ..Dns::default() }
}

#[tokio::test]
async fn finds_localhost_without_a_name_server() {
    let found = Dns::default().lookup("localhost").await.unwrap();
    assert!(found.ips.iter().all(IpAddr::is_loopback) && !found.ips.is_empty());
}

#[tokio::test]
async fn searches_as_a_pod_does_and_sees_each_change_at_once() {
    let answers = Arc::new(Mutex::new(vec![Ipv4Addr::new(10, 0, 0, 1)]));
    let dns = dns(server(answers.clone()).await);
    for name in [FULL, "chat-headless", "chat-headless.ns", "chat-headless.ns.svc"] {
        let found = dns.lookup(name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(found.ips, [IpAddr::from([10, 0, 0, 1])], "{name}");
        assert!(found.ttl <= Duration::from_secs(5), "{:?}", found.ttl);
    }
    answers.lock().push(Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(dns.lookup("chat-headless").await.unwrap().ips.len(), 2);
    assert!(dns.lookup("other").await.is_err());
    answers.lock().clear();
    assert!(dns.lookup("chat-headless").await.is_err(), "no address is no answer");
}
