//! The load generator: its own thread on its own core, measuring every call.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::response::Parts;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Full;
use tokio::time::Instant;

use super::cores::Cores;
use super::http::Client;
use super::processor_time;
use super::stream::{Stream, Tls};

/// Calls before the measuring begins: caches and branch predictors get warm.
const WARM_UP: Duration = Duration::from_millis(150);

/// Connections of a paced load; it stays a paced one until as many calls are in flight.
const PACED_CONNECTIONS: usize = 64;

/// What is called.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) address: SocketAddr,
    pub(super) path: &'static str,
    pub(super) body: Bytes,
    /// The event that the request emits, if it is one. A node that has no room for it says 503, and that ends no run.
    pub(super) event: Option<&'static str>,
    /// The credential that is sent along.
    pub(super) authorization: Option<HeaderValue>,
    /// How its connections are made, if they have TLS.
    pub(super) tls: Option<Tls>,
}

/// How it is called.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// So many connections, each sending its next request when the answer to the last one is there.
    Closed(usize),
    /// So many requests a second, whatever the answers do; a call's latency counts from the moment it was due.
    Paced(f64),
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Median latency.
    pub(super) p50_us: f64,
    /// Latency that 1 % of the calls exceeded.
    pub(super) p99_us: f64,
    /// Answers a second.
    pub(super) rps: f64,
    /// Processor time of all servers a call.
    pub(super) cpu_us: f64,
    /// Calls that were answered with success, those before the measuring began included.
    pub(super) taken: u64,
}

/// What the calls of a run took.
#[derive(Debug, Default)]
struct Calls {
    /// Of those in the time that counts.
    latencies: Vec<Duration>,
    /// How many there were in all.
    count: usize,
    /// How many of all were answered with success.
    taken: u64,
}

/// Runs a load for `length` on the generator's core.
///
/// # Errors
/// When any call fails.
pub(super) async fn run(
    cores: &Cores,
    subject: &Subject,
    shape: Shape,
    length: Duration,
) -> anyhow::Result<Sample> {
    let (core, subject) = (cores.generator, subject.clone());
    let used = processor_time::of_servers();
    let generator = move || {
        Cores::pin(core)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            match shape {
                Shape::Closed(connections) => closed(&subject, connections, length).await,
                Shape::Paced(rate) => paced(&subject, rate, length).await,
            }
        })
    };
    let calls: anyhow::Result<Calls> = tokio::task::spawn_blocking(generator)
        .await
        .context("the load generator panicked")?;
    let used = processor_time::of_servers().saturating_sub(used);
    Sample::of(calls?, length, used)
}

/// Makes one call, to look at its answer.
pub(super) async fn once(subject: &Subject) -> anyhow::Result<(Parts, Bytes)> {
    Client::connect(subject.address, subject.tls.as_ref())
        .await?
        .call(subject.request())
        .await
}

/// Connections that have had an answer each, so that those behind the one that is called stand too.
async fn connect(
    subject: &Subject,
    count: usize,
    calls: &mut Calls,
) -> anyhow::Result<Vec<Client<Stream>>> {
    let connecting = (0..count).map(|_| async {
        let mut client = Client::connect(subject.address, subject.tls.as_ref()).await?;
        let is_taken = subject.call(&mut client).await?;
        Ok::<_, anyhow::Error>((client, is_taken))
    });
    let connected = try_join_all(connecting).await?.into_iter();
    Ok(connected
        .map(|(client, is_taken)| {
            calls.taken += u64::from(is_taken);
            client
        })
        .collect())
}

async fn closed(subject: &Subject, connections: usize, length: Duration) -> anyhow::Result<Calls> {
    let mut all = Calls::default();
    let clients = connect(subject, connections, &mut all).await?;
    let begin = Instant::now() + WARM_UP;
    let end = begin + length;
    let callers = clients.into_iter().map(|mut client| async move {
        let mut calls = Calls::default();
        loop {
            let sent = Instant::now();
            if sent >= end {
                return Ok::<_, anyhow::Error>(calls);
            }
            let is_taken = subject.call(&mut client).await?;
            calls.count += 1;
            calls.taken += u64::from(is_taken);
            if sent >= begin && is_taken {
                calls.latencies.push(sent.elapsed());
            }
        }
    });
    for mut calls in try_join_all(callers).await? {
        all.latencies.append(&mut calls.latencies);
        all.count += calls.count;
        all.taken += calls.taken;
    }
    Ok(all)
}

async fn paced(subject: &Subject, rate: f64, length: Duration) -> anyhow::Result<Calls> {
    let mut calls = Calls::default();
    let mut idle = connect(subject, PACED_CONNECTIONS, &mut calls).await?;
    let call = |mut client: Client<Stream>, due: Instant| async move {
        subject.call(&mut client).await?;
        Ok::<_, anyhow::Error>((client, due, due.elapsed()))
    };
    let interval = Duration::from_secs_f64(1.0 / rate);
    let mut due = Instant::now();
    let begin = due + WARM_UP;
    let end = begin + length;
    let mut in_flight = FuturesUnordered::new();
    while due < end || !in_flight.is_empty() {
        while due < end
            && due <= Instant::now()
            && let Some(client) = idle.pop()
        {
            in_flight.push(call(client, due));
            due += interval;
        }
        // The runtime's timers are no finer than a millisecond, so the generator spins; it has the core to itself.
        tokio::select! {
            biased;
            Some(done) = in_flight.next() => {
                let (client, due, latency) = done?;
                idle.push(client);
                calls.count += 1;
                if due >= begin {
                    calls.latencies.push(latency);
                }
            }
            () = tokio::task::yield_now() => {}
        }
    }
    Ok(calls)
}

impl Subject {
    pub(super) fn new(address: SocketAddr, path: &'static str, body: Bytes) -> Self {
        Self {
            address,
            path,
            body,
            event: None,
            authorization: None,
            tls: None,
        }
    }

    pub(super) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(self.path);
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(event) = self.event {
            headers.insert("event", HeaderValue::from_static(event));
        }
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        request
    }

    /// Makes one call; whether it was answered with success.
    async fn call(&self, client: &mut Client<Stream>) -> anyhow::Result<bool> {
        let (head, body) = client
            .call(self.request())
            .await
            .with_context(|| format!("call {}", self.address))?;
        let is_full = self.event.is_some() && head.status == StatusCode::SERVICE_UNAVAILABLE;
        if !head.status.is_success() && !is_full {
            let said = String::from_utf8_lossy(&body);
            bail!("{} answered {}: {said}", self.address, head.status);
        }
        Ok(!is_full)
    }
}

impl Sample {
    fn of(calls: Calls, length: Duration, used: Duration) -> anyhow::Result<Self> {
        let Calls {
            mut latencies,
            count: calls,
            taken,
        } = calls;
        latencies.sort_unstable();
        let count = latencies.len();
        let quantile = |percent: usize| {
            let at = (count * percent / 100).min(count.saturating_sub(1));
            latencies
                .get(at)
                .map(|latency| latency.as_secs_f64() * 1e6)
                .context("no call was answered in the time")
        };
        Ok(Self {
            p50_us: quantile(50)?,
            p99_us: quantile(99)?,
            rps: count as f64 / length.as_secs_f64(),
            cpu_us: used.as_secs_f64() * 1e6 / calls as f64,
            taken,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_the_middle_the_tail_and_the_rate() {
        let calls = Calls {
            latencies: (1..=200).rev().map(Duration::from_micros).collect(),
            count: 250,
            taken: 250,
        };
        let used = Duration::from_millis(5);
        let sample = Sample::of(calls, Duration::from_secs(2), used).unwrap();
        assert!((sample.cpu_us - 20.0).abs() < 1e-6, "{sample:?}");
        assert!((sample.p50_us - 101.0).abs() < 1e-6, "{sample:?}");
        assert!((sample.p99_us - 199.0).abs() < 1e-6, "{sample:?}");
        assert!((sample.rps - 100.0).abs() < 1e-6, "{sample:?}");
        assert!(Sample::of(Calls::default(), Duration::from_secs(1), used).is_err());
    }
}
