use proptest::collection::vec;
use proptest::prelude::*;

use super::body::SIZE_LINE_BYTES_MAX;
use super::*;

const MAX: usize = 100_000;

const WANTED: Wanted = Wanted {
    body_bytes_max: MAX,
    stream_bytes_max: None,
    has_headers: false,
    is_of_head: false,
};

/// Reads bytes that come in pieces of the given lengths, the last one over and over; then the end.
fn read(bytes: &[u8], pieces: &[usize]) -> Result<(Answer, usize), Error> {
    let mut parser = Parser::new(WANTED);
    let mut buffer = BytesMut::new();
    let mut rest = bytes;
    let mut pieces = pieces.iter().copied();
    let mut length = usize::MAX;
    while !rest.is_empty() {
        length = pieces.next().unwrap_or(length).clamp(1, rest.len());
        let (piece, left) = rest.split_at(length);
        rest = left;
        buffer.extend_from_slice(piece);
        if let Some(answer) = parser.take(&mut buffer)? {
            return Ok((answer, buffer.len() + rest.len()));
        }
    }
    parser.end(&mut buffer).map(|answer| (answer, 0))
}

/// What the bytes come to, in one piece and byte by byte.
fn both(bytes: &str) -> Result<(Answer, usize), Error> {
    let whole = read(bytes.as_bytes(), &[]);
    let by_bytes = read(bytes.as_bytes(), &[1]);
    assert_eq!(whole, by_bytes, "{bytes:?}");
    whole
}

fn body(bytes: &str) -> String {
    let (answer, left) = both(bytes).unwrap_or_else(|error| panic!("{bytes:?}: {error:?}"));
    assert_eq!(left, 0, "{bytes:?}");
    String::from_utf8(answer.body.to_vec()).unwrap()
}

fn is_kept(fields: &str) -> bool {
    let bytes = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n");
    both(&bytes).unwrap().0.is_kept
}

#[test]
fn a_body_ends_where_its_head_says() {
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "ok");
    assert_eq!(
        body("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2, 2\r\n\r\nok"),
        "ok"
    );
    assert_eq!(body("HTTP/1.1 200\r\n\r\nuntil the end"), "until the end");
    assert_eq!(body("HTTP/1.0 200 OK\n\nold"), "old");
    assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n"), "");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    assert_eq!(
        body(&format!(
            "{chunked}2\r\nok\r\n0A;x=y \r\n0123456789\r\n0\r\n\r\n"
        )),
        "ok0123456789"
    );
    assert_eq!(
        body(&format!("{chunked}1\r\nx\r\n000\r\ntrailer: 1\r\n\r\n")),
        "x"
    );
    assert_eq!(
        body(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
        ),
        "x"
    );
}

#[test]
fn what_matters_of_a_head_is_read() {
    let bytes = "HTTP/1.1 418 Teapot\r\ncontent-type: text/x\r\nkeep-alive: max=5, timeout=7\r\ncontent-length: 0\r\n\r\n";
    let (answer, _) = both(bytes).unwrap();
    assert_eq!((answer.status, answer.is_kept), (418, true));
    assert_eq!(answer.content_type.as_deref(), Some("text/x"));
    assert_eq!(answer.kept_for, Some(Duration::from_secs(7)));
    assert!(!is_kept("connection: x , Close\r\n") && is_kept("connection: keep-alive\r\n"));
    let old = |field: &str| format!("HTTP/1.0 200 OK\r\n{field}content-length: 0\r\n\r\n");
    assert!(!both(&old("")).unwrap().0.is_kept);
    assert!(both(&old("connection: keep-alive\r\n")).unwrap().0.is_kept);
    let two_lengths =
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert!(!both(two_lengths).unwrap().0.is_kept);
}

#[test]
fn what_follows_an_answer_is_left() {
    let two = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP";
    assert_eq!(read(two.as_bytes(), &[]).unwrap().1, 4);
}

#[test]
fn what_is_no_http_is_said_to_be_none() {
    let malformed = |bytes: &str| {
        let outcome = both(bytes);
        assert!(
            matches!(outcome, Err(Error::Malformed(_))),
            "{bytes:?}: {outcome:?}"
        );
    };
    malformed("SSH-2.0-OpenSSH_9\r\n");
    malformed("HTTP/2 200\r\n\r\n");
    malformed("HTTP/1.1 101 Switching Protocols\r\n\r\n");
    for field in [
        "content-length: x",
        "content-length:",
        "content-length: +1",
        "content-length: -1",
        "content-length: 1\r\ncontent-length: 2",
        "content-length: 99999999999999999999999",
        "transfer-encoding: gzip",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "no field",
    ] {
        malformed(&format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n"));
    }
    malformed("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    for chunks in [
        "zz\r\n",
        "\r\n",
        "+1\r\nx\r\n",
        "1\nx\r\n",
        "1\r\nxx\r\n",
        "fffffffffffffffff\r\n",
    ] {
        malformed(&format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"
        ));
    }
    let long = "x".repeat(HEAD_BYTES_MAX);
    malformed(&format!("HTTP/1.1 200 OK\r\na: {long}"));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    malformed(&format!("{chunked}1;{}", &long[..SIZE_LINE_BYTES_MAX]));
    malformed(&format!("{chunked}0\r\n{}", "a: b\r\n".repeat(20_000)));
}

#[test]
fn an_answer_that_is_cut_is_none() {
    for bytes in [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
    ] {
        assert_eq!(both(bytes), Err(Error::Cut), "{bytes:?}");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let length = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MAX + 1);
    assert_eq!(both(&length), Err(Error::TooLarge));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(
        both(&format!("{chunked}1\r\nx\r\n{MAX:x}\r\n")),
        Err(Error::TooLarge)
    );
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MAX + 1));
    assert_eq!(read(endless.as_bytes(), &[]), Err(Error::TooLarge));
}

#[test]
fn a_large_body_comes_in_one_buffer_of_its_length() {
    let mut buffer = BytesMut::from("HTTP/1.1 200 OK\r\ncontent-length: 90000\r\n\r\n");
    let mut parser = Parser::new(WANTED);
    assert_eq!(parser.take(&mut buffer), Ok(None));
    assert!(buffer.capacity() >= 90_000, "{}", buffer.capacity());
}

proptest! {
    #[test]
    fn nothing_that_comes_panics(bytes in vec(any::<u8>(), 0..200), pieces in vec(1usize..20, 1..10)) {
        let _ = read(&bytes, &pieces);
    }

    #[test]
    fn nothing_that_begins_well_panics(
        start in prop::sample::select(vec![
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ]),
        rest in "[0-9a-f;: \r\n]{0,60}",
        pieces in vec(1usize..20, 1..10),
    ) {
        let _ = read(format!("{start}{rest}").as_bytes(), &pieces);
    }

    #[test]
    fn any_cut_gives_the_same_answer(
        body in vec(any::<u8>(), 0..300),
        chunk in 1usize..50,
        is_chunked: bool,
        pieces in vec(1usize..80, 1..10),
    ) {
        let mut bytes = b"HTTP/1.1 200 OK\r\nserver: x\r\n".to_vec();
        if is_chunked {
            bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            for piece in body.chunks(chunk) {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(&body);
        }
        let (answer, left) = read(&bytes, &pieces).unwrap();
        prop_assert_eq!(&answer.body[..], &body[..]);
        prop_assert!(answer.is_kept && left == 0);
    }

    #[test]
    fn a_body_that_streams_is_the_same_however_the_bytes_are_cut(
        length in 0..200_000_usize, chunk in 100..50_000_usize, cuts in vec(100..30_000_usize, 1..40), is_chunked: bool,
    ) {
        let body: Vec<u8> = (0..=250).cycle().take(length).collect();
        let bytes = if is_chunked { chunked(&body, chunk) } else { sized(&body) };
        let (streamed, left) = read_stream(&bytes, &cuts).unwrap();
        prop_assert!(streamed == body, "{} bytes came as {}", body.len(), streamed.len());
        prop_assert_eq!(left, 0);
        let cut = bytes.len() - 1;
        prop_assert_eq!(read_stream(&bytes[..cut], &cuts), Err(Error::Cut));
    }
}

fn sized(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Reads an answer that may stream out of bytes that come in pieces of these lengths, over and over; its body, and how many bytes
/// do not belong to it.
fn read_stream(bytes: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, usize), Error> {
    let wanted = Wanted {
        stream_bytes_max: Some(200_000),
        ..WANTED
    };
    let (mut parser, mut rest) = (Parser::new(wanted), None::<Rest>);
    let (mut buffer, mut body) = (BytesMut::new(), Vec::new());
    let mut bytes = bytes;
    for cut in cuts.iter().cycle() {
        let Some(stream) = &mut rest else {
            let Some(answer) = parser.take(&mut buffer)? else {
                if bytes.is_empty() {
                    return parser.end(&mut buffer).map(|_| (body, 0));
                }
                let (piece, left) = bytes.split_at((*cut).min(bytes.len()));
                bytes = left;
                buffer.extend_from_slice(piece);
                continue;
            };
            body.extend_from_slice(&answer.body);
            rest = answer.rest;
            if rest.is_none() {
                return Ok((body, buffer.len() + bytes.len()));
            }
            continue;
        };
        body.extend_from_slice(&stream.take(&mut buffer)?);
        if stream.is_ended() {
            return Ok((body, buffer.len() + bytes.len()));
        }
        if bytes.is_empty() {
            return stream.end().map(|()| (body, 0));
        }
        let (piece, left) = bytes.split_at((*cut).min(bytes.len()));
        bytes = left;
        buffer.extend_from_slice(piece);
    }
    unreachable!("the cuts are repeated")
}

#[test]
fn headers_are_given_where_they_are_wanted() {
    let bytes = "HTTP/1.1 404 Not Found\r\nSet-Cookie: a=1\r\nset-cookie: b\r\nContent-Type: text/plain\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: x\r\nContent-Length: 2\r\n\r\nno";
    let read = |wanted| {
        let mut buffer = BytesMut::from(bytes);
        Parser::new(wanted).take(&mut buffer).unwrap().unwrap()
    };
    assert_eq!(read(WANTED).headers, []);
    let wanted = Wanted {
        has_headers: true,
        ..WANTED
    };
    let answer = read(wanted);
    let cookie = |value: &'static str| ("set-cookie".to_owned(), Bytes::from(value));
    assert_eq!(answer.headers, [cookie("a=1"), cookie("b")]);
    assert_eq!(answer.content_type.as_deref(), Some("text/plain"));
    assert_eq!(answer.body, "no");
}

#[test]
fn the_answer_to_head_has_no_body() {
    let wanted = Wanted {
        has_headers: true,
        is_of_head: true,
        ..WANTED
    };
    for fields in ["content-length: 5\r\n", "transfer-encoding: chunked\r\n"] {
        let mut buffer = BytesMut::from(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_str());
        let answer = Parser::new(wanted).take(&mut buffer).unwrap().unwrap();
        assert_eq!((answer.body.len(), answer.is_kept), (0, true));
        let has_length = answer
            .headers
            .iter()
            .any(|(name, _)| name == "content-length");
        assert_eq!(has_length, fields.starts_with("content-length"));
    }
}
