//! Reads the output of containers of the `http` contract.

use std::sync::Arc;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::StreamExt;
use protocol::{Function, InstanceId};

use super::Docker;
use crate::output::{Running, Stream, Writer, now_us};

/// From where output is read.
#[derive(Debug, Clone, Copy)]
pub(super) enum From {
    /// From the container's start.
    Start,
    /// From now: what was written before was read by an earlier generation.
    Now,
}

/// Lines of the end of the output that an error repeats.
const END_LINES: &str = "10";
/// Bytes of them.
const END_BYTES_MAX: usize = 1024;

/// Follows a container's output until it ends. The future owns all that it needs, so that reading delays no start.
pub(super) fn follow(
    docker: &Docker,
    function: &Function,
    id: &InstanceId,
    running: Arc<Running>,
    from: From,
) -> impl Future<Output = Option<()>> + use<> {
    let short: String = id.as_str().chars().take(12).collect();
    let writer = Writer::new(&docker.shared.setup.outputs, function, &short, running);
    docker
        .shared
        .setup
        .stop
        .clone()
        .run_until_cancelled_owned(read(docker.clone(), id.clone(), writer, from))
}

async fn read(docker: Docker, id: InstanceId, mut writer: Writer, from: From) {
    let mut last_us = match from {
        From::Start => 0,
        From::Now => now_us(),
    };
    loop {
        docker.shared.engine.until_up().await;
        let Ok(client) = docker.shared.engine.stream_client().await else {
            continue;
        };
        // The engine counts in whole seconds, so it repeats what was read of the last one.
        let resumed_us = last_us;
        let since = resumed_us / 1_000_000;
        let options = LogsOptionsBuilder::new()
            .follow(true)
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(i32::try_from(since).unwrap_or(i32::MAX))
            .build();
        let mut output = std::pin::pin!(client.logs(id.as_str(), Some(options)));
        while let Some(Ok(piece)) = output.next().await {
            let (stream, message) = match piece {
                LogOutput::StdErr { message } => (Stream::Stderr, message),
                LogOutput::StdOut { message } | LogOutput::Console { message } => {
                    (Stream::Stdout, message)
                }
                LogOutput::StdIn { .. } => continue,
            };
            let (at_us, text) = split_timestamp(&message);
            if at_us.is_some_and(|at_us| at_us <= resumed_us) {
                continue;
            }
            last_us = at_us.unwrap_or(last_us);
            writer.write(stream, text, at_us);
        }
        // The stream ends with the container, and also when the engine restarts while the container goes on.
        if docker.shared.instances.end(&id).is_none() {
            return;
        }
        tokio::time::sleep(docker.shared.setup.settings.retry_interval).await;
        if docker.shared.instances.end(&id).is_none() {
            return;
        }
    }
}

/// The end of a container's output, for an error.
pub(super) async fn end(docker: &Docker, id: &InstanceId) -> String {
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .tail(END_LINES)
        .build();
    let read =
        docker
            .shared
            .engine
            .call("reading the output of a container", |client| async move {
                let mut text = Vec::new();
                let mut output = std::pin::pin!(client.logs(id.as_str(), Some(options)));
                while let Some(piece) = output.next().await {
                    text.extend_from_slice(&piece?.into_bytes());
                    if text.len() > 4 * END_BYTES_MAX {
                        text.drain(..text.len() - END_BYTES_MAX);
                    }
                }
                Ok(text)
            });
    let text = read.await.unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(END_BYTES_MAX)..])
        .trim()
        .to_owned()
}

/// Takes `2026-11-22T02:17:16.369625876Z ` off a piece: microseconds since 1970 and the rest.
fn split_timestamp(piece: &[u8]) -> (Option<u64>, &[u8]) {
    let Some(space) = piece.iter().take(40).position(|byte| *byte == b' ') else {
        return (None, piece);
    };
    match std::str::from_utf8(&piece[..space])
        .ok()
        .and_then(parse_timestamp)
    {
        Some(at_us) => (Some(at_us), &piece[space + 1..]),
        None => (None, piece),
    }
}

/// The engine writes RFC 3339 in UTC, with up to nine digits after the point.
fn parse_timestamp(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(str::parse::<u64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.split(':').map(str::parse::<u64>);
    let (hour, minute, second) = (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    let micros: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    // Days since 1970, by counting years from March on, so that a leap day is the last of its year.
    let (shifted_year, shifted_month) = if month > 2 {
        (year, month - 3)
    } else {
        (year.checked_sub(1)?, month + 9)
    };
    let era_days = 365 * shifted_year + shifted_year / 4 - shifted_year / 100 + shifted_year / 400;
    let days = (era_days + (153 * shifted_month + 2) / 5 + day).checked_sub(719_469)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<u64>) {
        assert_eq!(parse_timestamp(text), expected, "{text}");
    }

    #[test]
    fn timestamps_of_the_engine_are_read() {
        check("1970-01-01T00:00:00Z", Some(0));
        check("2000-02-29T12:00:00.5Z", Some(951_825_600_500_000));
        check(
            "2026-11-22T02:17:16.369625876Z",
            Some(1_795_313_836_369_625),
        );
        check("2026-11-22", None);
        check("x", None);
    }

    #[test]
    fn a_piece_without_a_timestamp_stays_whole() {
        assert_eq!(
            split_timestamp(b"hello world\n"),
            (None, b"hello world\n".as_slice())
        );
        let (at_us, text) = split_timestamp(b"1970-01-01T00:00:01Z hello\n");
        assert_eq!((at_us, text), (Some(1_000_000), b"hello\n".as_slice()));
    }
}
