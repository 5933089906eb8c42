use http_body_util::Full;
use proptest::prelude::*;

use super::*;

fn check_operation(method: &str, uri: &str, expected: Result<Operation, Refusal>) {
    let request = Request::builder().method(method).uri(uri).body(()).unwrap();
    assert_eq!(Operation::of(&request), expected, "{method} {uri}");
}

#[test]
fn paths_name_version_and_operation() {
    check_operation("POST", "/peer/v1/invoke", Ok(Operation::Invoke));
    check_operation("POST", "/peer/v1/probe", Ok(Operation::Probe));
    check_operation(
        "POST",
        "/peer/v1/resolve-image",
        Ok(Operation::ResolveImage),
    );
    check_operation("POST", "/peer/v1/logs", Ok(Operation::Logs));
    check_operation("GET", "/peer/v1/invoke", Err(Refusal::Unknown));
    check_operation("POST", "/peer/v2/invoke", Err(Refusal::OtherVersion));
    check_operation("POST", "/peer/v1/", Err(Refusal::Unknown));
    check_operation("POST", "/peer/v1", Err(Refusal::Unknown));
    check_operation("POST", "/peer/vx/invoke", Err(Refusal::Unknown));
    check_operation("POST", "/invoke", Err(Refusal::Unknown));
}

#[test]
fn our_requests_are_read_by_our_server() {
    for operation in Operation::ALL {
        assert_eq!(
            Operation::of(&request(operation, Message::empty())),
            Ok(operation)
        );
    }
}

#[test]
fn every_refusal_is_a_refusal_to_the_caller() {
    let peer = Peer {
        id: protocol::NodeId::random(),
        name: "n2".into(),
        address: ([127, 0, 0, 1], 1).into(),
        fingerprint: crate::peer::Fingerprint([0; 32]),
    };
    let refusals = [
        Refusal::Draining,
        Refusal::TooLarge(1),
        Refusal::Malformed("no head".into()),
        Refusal::Stranger,
        Refusal::OtherVersion,
        Refusal::Unknown,
    ];
    for refusal in refusals {
        let status = refusal.response().status();
        assert_ne!(status, StatusCode::OK);
        assert!(
            matches!(refusal_error(&peer, status, b"why"), Error::Refused { is_answer: true, .. }),
            "{refusal:?}"
        );
    }
    // A status that this program never sends says nothing about what ran.
    assert!(matches!(
        refusal_error(&peer, StatusCode::BAD_GATEWAY, b""),
        Error::Protocol { .. }
    ));
}

/// Reads a body that is ready at once.
fn read_now<B: Body<Data = Bytes> + Unpin>(mut body: B, bytes_max: usize) -> Option<Bytes> {
    use futures_util::FutureExt;
    read_body(&mut body, bytes_max)
        .now_or_never()
        .expect("it is ready")
        .ok()
}

proptest! {
    #[test]
    fn a_message_is_its_pieces_and_says_its_length(head: Vec<u8>, payload: Vec<u8>) {
        let message = Message::new(head.clone().into(), payload.clone().into());
        let whole = [head, payload].concat();
        prop_assert_eq!(message.size_hint().exact(), Some(whole.len() as u64));
        prop_assert_eq!(read_now(message, whole.len()).unwrap(), whole);
    }

    #[test]
    fn a_body_is_read_up_to_the_limit(body: Vec<u8>, bytes_max in 0_usize..200) {
        let read = read_now(Full::new(Bytes::from(body.clone())), bytes_max);
        prop_assert_eq!(read.is_some(), body.len() <= bytes_max);
        // The same in pieces, whose number and length nobody announced.
        let pieces = body.chunks(7).map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))));
        let pieces: Vec<_> = pieces.collect();
        let streamed = http_body_util::StreamBody::new(futures_util::stream::iter(pieces));
        let read = read_now(streamed, bytes_max);
        prop_assert_eq!(read.is_some(), body.len() <= bytes_max);
        prop_assert!(read.is_none_or(|read| read == body));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let _ = read_small::<ResolveImage>(&bytes);
        let _ = read_small::<ResolvedImage>(&bytes);
        let _ = read_small::<Logs>(&bytes);
        let _ = protocol::peer::decode::<ReplyHead>(bytes.clone().into());
        let _ = protocol::peer::decode::<InvokeHead>(bytes.into());
    }

    #[test]
    fn any_path_is_read_without_a_panic(path in "/(peer/)?(v[0-9]{0,20}/)?[a-z/-]{0,12}") {
        let request = Request::builder().method("POST").uri(path).body(()).unwrap();
        let _ = Operation::of(&request);
    }
}
