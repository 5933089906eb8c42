use std::sync::Arc;

use config::settings::LogsSettings;
use futures_util::{FutureExt, StreamExt};
use protocol::{Function, InvocationId};

use super::*;

fn function(id: &str) -> Function {
    let record = format!(
        r#"{{"space":"default","functionId":"{id}","type":"process","provider":{{"command":["x"]}}}}"#
    );
    serde_json::from_str(&record).unwrap()
}

fn outputs(function_max: u64, total_max: u64) -> Outputs {
    let settings = LogsSettings {
        function_max: bytesize::ByteSize(function_max),
        total_max: bytesize::ByteSize(total_max),
        line_max: bytesize::ByteSize(16),
        ..LogsSettings::default()
    };
    Outputs::new(&settings, "n1")
}

fn kept(outputs: &Outputs, function: &Function) -> Vec<Line> {
    let stream = outputs.read(&function.space, &function.function_id, false);
    let lines = stream.map(|line| serde_json::from_slice(&line.unwrap()).unwrap());
    lines
        .collect::<Vec<Line>>()
        .now_or_never()
        .expect("what is kept is read at once")
}

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[tokio::test]
async fn pieces_become_lines_tagged_with_stream_and_invocation() {
    let outputs = outputs(10_000, 100_000);
    let function = function("f");
    let running = Arc::new(Running::default());
    let mut writer = Writer::new(&outputs, &function, "i1", Arc::clone(&running));
    let id: InvocationId = "one".parse().unwrap();
    let run = running.enter(&id);
    writer.write(Stream::Stdout, b"hel", None);
    writer.write(Stream::Stderr, b"oops\r\n", None);
    writer.write(Stream::Stdout, b"lo\nrest", None);
    drop(run);
    drop(writer);
    let lines = kept(&outputs, &function);
    assert_eq!(texts(&lines), ["oops", "hello", "rest"]);
    assert!(
        lines
            .iter()
            .all(|line| line.invocations == ["one"] && line.node == "n1" && line.instance == "i1")
    );
    assert_eq!(lines[0].stream, "stderr");
    assert_eq!(lines[1].stream, "stdout");
}

#[tokio::test]
async fn a_long_line_is_cut_and_says_so() {
    let outputs = outputs(10_000, 100_000);
    let function = function("f");
    let mut writer = Writer::new(&outputs, &function, "i1", Arc::default());
    writer.write(Stream::Stdout, &[b'x'; 100], None);
    writer.write(Stream::Stdout, b"yy\nshort\n", None);
    assert_eq!(
        texts(&kept(&outputs, &function)),
        ["xxxxxxxxxxxxxxxx [cut]", "short"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_bounded_and_counted() {
    let outputs = outputs(2_000, 100_000);
    let function = function("f");
    let mut writer = Writer::new(&outputs, &function, "i1", Arc::default());
    for _ in 0..1_000 {
        writer.write(Stream::Stdout, b"0123456789\n", None);
    }
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    writer.write(Stream::Stdout, b"after\n", None);
    let lines = kept(&outputs, &function);
    let texts = texts(&lines);
    assert!(
        texts.contains(&"800 lines were left out, the instance writes too fast"),
        "{texts:?}"
    );
    assert_eq!(texts.last(), Some(&"after"));
    assert!(lines.iter().map(|line| render(line).len()).sum::<usize>() <= 2_000);
}

#[tokio::test]
async fn the_longest_unread_output_goes_first_when_all_is_too_much() {
    let outputs = outputs(10_000, 3_000);
    let [read, unread] = [function("read"), function("unread")];
    let write = |function: &Function, count: usize| {
        let mut writer = Writer::new(&outputs, function, "i1", Arc::default());
        for _ in 0..count {
            writer.write(Stream::Stdout, b"line\n", None);
        }
    };
    write(&read, 5);
    write(&unread, 5);
    assert_eq!(kept(&outputs, &read).len(), 5);
    write(&read, 15);
    assert_eq!(kept(&outputs, &unread).len(), 0);
    assert!(kept(&outputs, &read).len() >= 5);
}

#[tokio::test]
async fn a_follower_sees_old_and_new_lines_and_ends_with_the_function() {
    let outputs = outputs(10_000, 100_000);
    let function = function("f");
    let mut writer = Writer::new(&outputs, &function, "i1", Arc::default());
    writer.write(Stream::Stdout, b"old\n", None);
    let mut follower = outputs.read(&function.space, &function.function_id, true);
    writer.write(Stream::Stdout, b"new\n", None);
    for expected in ["old", "new"] {
        let line: Line = serde_json::from_slice(&follower.next().await.unwrap().unwrap()).unwrap();
        assert_eq!(line.text, expected);
    }
    outputs.forget(&function.space, &function.function_id);
    assert!(follower.next().await.is_none());
}

#[tokio::test]
async fn a_slow_follower_is_told_how_many_lines_it_missed() {
    let outputs = outputs(1_000_000, 10_000_000);
    let function = function("f");
    let mut follower = outputs.read(&function.space, &function.function_id, true);
    let mut writer = Writer::new(&outputs, &function, "i1", Arc::default());
    for _ in 0..1_500 {
        writer.write(Stream::Stdout, b"x\n", None);
    }
    let line: Line = serde_json::from_slice(&follower.next().await.unwrap().unwrap()).unwrap();
    assert_eq!(
        (line.stream.as_str(), line.text.as_str()),
        ("hearth", "476 lines are missing, the reader was too slow")
    );
}

#[tokio::test]
async fn a_function_of_the_same_name_does_not_begin_with_what_another_one_wrote() {
    let outputs = outputs(10_000, 100_000);
    let function = function("f");
    let mut old = Writer::new(&outputs, &function, "i1", Arc::default());
    old.write(Stream::Stdout, b"old\n", None);
    outputs.forget(&function.space, &function.function_id);
    old.write(Stream::Stdout, b"late\n", None);
    assert!(kept(&outputs, &function).is_empty());
    let mut new = Writer::new(&outputs, &function, "i2", Arc::default());
    old.write(Stream::Stdout, b"later\n", None);
    new.write(Stream::Stdout, b"new\n", None);
    drop(old);
    assert_eq!(texts(&kept(&outputs, &function)), ["new"]);
}
