//! Logs, metrics and traces of the process.

use std::fmt;
use std::sync::Arc;

use actors::invoker::Propagate;
use config::Settings;
use config::settings::LogFormat;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use protocol::invocation::TraceContext;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

pub mod meters;

/// The exporter's own traffic must not make spans and logs that are exported in turn.
const QUIET: &str = "async_nats=off,hyper=off,h2=off,reqwest=off,tonic=off,tower=off,bollard=off,rustls=off,aws_sigv4=off,chitchat=off,ractor=warn";

/// What the node's parts need of metrics and traces; cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    prometheus: PrometheusHandle,
    traces: Option<Traces>,
}

/// Running telemetry of the process; flushed by [`Telemetry::shutdown`].
#[derive(Debug)]
pub struct Telemetry {
    /// For the nodes.
    pub metrics: Metrics,
}

#[derive(Clone)]
struct Traces {
    provider: SdkTracerProvider,
}

/// Ties spans to W3C context through the OpenTelemetry layer.
#[derive(Debug)]
struct OtelPropagate;

/// Bounds of buckets, each twice the one before: those of Event Gateway's histograms.
fn doubling(first: f64, count: u32) -> Vec<f64> {
    (0..count)
        .map(|power| first * f64::from(2u32.pow(power)))
        .collect()
}

impl Telemetry {
    /// Installs logs, metrics and, where an endpoint is set, traces for the whole process.
    ///
    /// # Errors
    /// When the log directives or the endpoint can not be used, or it was called before.
    pub fn install(settings: &Settings) -> anyhow::Result<Self> {
        let processing = Matcher::Full("gateway_events_custom_processing_seconds".to_owned());
        let prometheus = PrometheusBuilder::new()
            .set_buckets(&BUCKETS)?
            .set_buckets_for_metric(processing, &doubling(0.000_01, 20))?
            .set_buckets_for_metric(
                Matcher::Full("gateway_config_request_duration_seconds".to_owned()),
                &doubling(0.0005, 16),
            )?
            .install_recorder()?;
        meters::register();
        let traces = settings
            .telemetry
            .otlp_endpoint
            .as_deref()
            .map(|endpoint| Traces::start(settings, endpoint));
        let traces = traces.transpose()?;
        let directives = format!("{QUIET},{}", settings.logs.level);
        // It logs what it sends to the engine, the environment of containers with it: no directive turns that on.
        let is_safe = filter_fn(|metadata| !metadata.target().starts_with("bollard"));
        let filter = EnvFilter::try_new(directives)?.and(is_safe);
        let logs: Box<dyn Layer<Registry> + Send + Sync> = match settings.logs.format {
            LogFormat::Json => tracing_subscriber::fmt::layer()
                .json()
                .with_writer(std::io::stderr)
                .with_filter(filter)
                .boxed(),
            LogFormat::Text => {
                let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
                tracing_subscriber::fmt::layer()
                    .with_ansi(is_terminal)
                    .with_writer(std::io::stderr)
                    .with_filter(filter)
                    .boxed()
            }
        };
        let spans = traces.as_ref().map(|traces| {
            let tracer = traces.provider.tracer("hearth");
            tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_filter(EnvFilter::new(format!("{QUIET},info")))
        });
        tracing_subscriber::registry()
            .with(logs)
            .with(spans)
            .try_init()?;
        Ok(Self {
            metrics: Metrics { prometheus, traces },
        })
    }

    /// Sends what spans are still queued; blocks for a moment, so it is run off the runtime.
    pub async fn shutdown(self) {
        let Some(Traces { provider }) = self.metrics.traces else {
            return;
        };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Buckets of durations, in seconds: from a warm call to a cold start that pulls an image.
const BUCKETS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    30.0,
];

impl Traces {
    fn start(settings: &Settings, endpoint: &str) -> anyhow::Result<Self> {
        // The exporter runs on a thread of its own with a blocking client, made off the runtime.
        let client = std::thread::spawn(reqwest::blocking::Client::new)
            .join()
            .map_err(|_| anyhow::anyhow!("the client of the traces' exporter could not be made"))?;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .build()?;
        let node = opentelemetry::KeyValue::new("hearth.node", settings.node.name.clone());
        let provider = SdkTracerProvider::builder()
            .with_resource(
                Resource::builder()
                    .with_service_name("hearth")
                    .with_attribute(node)
                    .build(),
            )
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                settings.telemetry.sample_ratio,
            ))))
            .with_batch_exporter(exporter)
            .build();
        Ok(Self { provider })
    }
}

impl Metrics {
    /// Renders all metrics in Prometheus' text format.
    pub fn render(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let prometheus = self.prometheus.clone();
        Arc::new(move || prometheus.render())
    }

    /// Ties spans to trace context inside the node; `None` while no traces are exported.
    pub fn propagate(&self) -> Option<Arc<dyn Propagate>> {
        self.traces
            .as_ref()
            .map(|_| Arc::new(OtelPropagate) as Arc<dyn Propagate>)
    }

    /// Makes a request's span the child of the trace its headers name; `None` while no traces are exported.
    pub fn request_context(&self) -> Option<gateway::Propagate> {
        self.traces.as_ref()?;
        Some(Arc::new(
            |headers: &http::HeaderMap, span: &tracing::Span| {
                let text = |name| {
                    headers
                        .get(name)
                        .and_then(|value| value.to_str().ok())
                        .map(str::to_owned)
                };
                let trace = TraceContext {
                    parent: text("traceparent"),
                    state: text("tracestate"),
                };
                OtelPropagate.set_parent(span, &trace);
                OtelPropagate.context(span)
            },
        ))
    }
}

impl Propagate for OtelPropagate {
    fn set_parent(&self, span: &tracing::Span, trace: &TraceContext) {
        let context = TraceContextPropagator::new().extract(&Headers(trace));
        // The span has not been entered yet, which is the only thing that could make this fail.
        let _ = span.set_parent(context);
    }

    fn context(&self, span: &tracing::Span) -> TraceContext {
        let mut headers = HeadersMut(TraceContext::default());
        TraceContextPropagator::new().inject_context(&span.context(), &mut headers);
        headers.0
    }
}

struct Headers<'a>(&'a TraceContext);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.0.parent.as_deref(),
            "tracestate" => self.0.state.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

struct HeadersMut(TraceContext);

impl Injector for HeadersMut {
    fn set(&mut self, key: &str, value: String) {
        match key {
            "traceparent" => self.0.parent = Some(value),
            "tracestate" if !value.is_empty() => self.0.state = Some(value),
            _ => {}
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("has_traces", &self.traces.is_some())
            .finish_non_exhaustive()
    }
}
