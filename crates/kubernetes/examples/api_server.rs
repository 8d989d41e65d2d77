//! The tests' API server as a process, for tests of whole clusters:
//! `cargo run -p ethogram-kubernetes --example api_server -- 127.0.0.1:8001 objects.json kubeconfig`
//!
//! Serves the objects of a list, as `kubectl get -o json` writes it, and writes a kubeconfig
//! that leads there. Each further line of its input is an object that is added or replaced.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test's helper fails")]

#[allow(dead_code, reason = "it is the test suite's")]
#[path = "../tests/suite/fake_api.rs"]
mod fake_api;
#[allow(dead_code, reason = "it is the test suite's")]
#[path = "../tests/suite/fake_http.rs"]
mod fake_http;

use fake_api::FakeApi;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, objects, kubeconfig] = &arguments[..] else {
        panic!("usage: api_server ADDR:PORT OBJECTS.json KUBECONFIG");
    };
    let fake = FakeApi::default();
    fake.put_all(&std::fs::read_to_string(objects).unwrap());
    let (address, serving) = fake_http::serve_at(&fake, address).await;
    std::fs::write(kubeconfig, fake_http::kubeconfig_text(address)).unwrap();
    println!("ready: {address}");
    let told = fake.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            told.put(serde_json::from_str(&line.unwrap()).unwrap());
        }
    });
    serving.await.unwrap();
}
