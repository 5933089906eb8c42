//! The connection to NATS: who we are, whom we trust, and what is told of it.

use std::path::Path;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use config::settings::JetStreamSettings;

use super::OpenError;

/// The longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Requests that wait for the connection's task.
const REQUESTS: usize = 2_048;

/// Makes a client. It connects in the background, so a server that is down does not keep a node from starting.
///
/// # Errors
/// [`OpenError::Setting`] when a file can not be read or what is in it can not be used.
pub(super) async fn client(settings: &JetStreamSettings, name: &str) -> Result<Client, OpenError> {
    let servers = settings.servers.iter().map(|server| {
        let parsed = server.parse::<ServerAddr>();
        parsed.map_err(|error| wrong("servers", server, &error))
    });
    let servers: Vec<ServerAddr> = servers.collect::<Result<_, _>>()?;
    let options = ConnectOptions::new()
        .name(name)
        .retry_on_initial_connect()
        .client_capacity(REQUESTS)
        .connection_timeout(settings.operation_timeout)
        // Twice without an answer, and the connection is made anew.
        .ping_interval(settings.session_timeout / 5)
        .reconnect_delay_callback(pause)
        .event_callback(async |event| tell(&event));
    let options = identify(options, settings)?;
    let options = trust(options, settings)?;
    options
        .connect(servers)
        .await
        .map_err(|error| OpenError::Connect(error.to_string()))
}

fn identify(
    mut options: ConnectOptions,
    settings: &JetStreamSettings,
) -> Result<ConnectOptions, OpenError> {
    if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
        options = options.user_and_password(user.clone(), password.expose().to_owned());
    }
    if let Some(token) = &settings.token {
        options = options.token(token.expose().to_owned());
    }
    if let Some(seed) = &settings.nkey {
        options = options.nkey(seed.expose().to_owned());
    }
    if let Some(path) = &settings.creds_file {
        let text = read("creds_file", path)?;
        options = options
            .credentials(&text)
            .map_err(|error| wrong("creds_file", &path.display().to_string(), &error))?;
    }
    Ok(options)
}

/// The client reads these files whenever it connects; that they are there is looked at now, to say so at once.
fn trust(
    mut options: ConnectOptions,
    settings: &JetStreamSettings,
) -> Result<ConnectOptions, OpenError> {
    if let Some(path) = &settings.ca_file {
        read("ca_file", path)?;
        options = options.add_root_certificates(path.clone());
    }
    if let (Some(certificate), Some(key)) = (&settings.cert_file, &settings.key_file) {
        read("cert_file", certificate)?;
        read("key_file", key)?;
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    let is_sealed = settings.ca_file.is_some() || settings.cert_file.is_some();
    Ok(options.require_tls(is_sealed))
}

fn read(key: &'static str, path: &Path) -> Result<String, OpenError> {
    std::fs::read_to_string(path).map_err(|error| wrong(key, &path.display().to_string(), &error))
}

fn wrong(key: &'static str, value: &str, error: &std::io::Error) -> OpenError {
    OpenError::Setting {
        key,
        value: value.to_owned(),
        why: error.to_string(),
    }
}

fn pause(attempts: usize) -> Duration {
    let doubled = Duration::from_millis(10 << attempts.min(10));
    doubled.min(PAUSE_MAX).mul_f64(rand::random_range(0.5..1.0))
}

fn tell(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => {
            tracing::warn!(
                "the connection to NATS was lost: events are answered with 503 until it is back"
            );
        }
        Event::ServerError(error) => tracing::warn!(%error, "NATS refuses something"),
        Event::ClientError(error) => tracing::debug!(%error, "NATS can not be reached"),
        event => tracing::debug!(%event, "NATS"),
    }
}
