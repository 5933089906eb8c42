//! Guesses the media type of a body, as Go's `DetectContentType` does, for answers whose function named none.
//!
//! Known are HTML, XML, PDF, PostScript, byte order marks, the images of the web, archives (zip, gzip, rar), the common
//! audio and video containers, fonts and WebAssembly; other text is `text/plain`, and the rest `application/octet-stream`.

/// Bytes that are looked at.
const LOOK_BYTES: usize = 512;

/// Guesses the media type of a body.
pub(super) fn content_type(body: &[u8]) -> &'static str {
    let body = &body[..body.len().min(LOOK_BYTES)];
    let text = body.trim_ascii_start();
    if HTML.iter().any(|tag| is_tag(text, tag)) {
        return "text/html; charset=utf-8";
    }
    if text.starts_with(b"<?xml") {
        return "text/xml; charset=utf-8";
    }
    if let Some((_, content_type)) = EXACT.iter().find(|(start, _)| body.starts_with(start)) {
        return content_type;
    }
    if let Some(content_type) = contained(body) {
        return content_type;
    }
    match body.iter().any(|byte| is_binary(*byte)) {
        true => "application/octet-stream",
        false => "text/plain; charset=utf-8",
    }
}

const HTML: [&[u8]; 17] = [
    b"<!DOCTYPE HTML",
    b"<HTML",
    b"<HEAD",
    b"<SCRIPT",
    b"<IFRAME",
    b"<H1",
    b"<DIV",
    b"<FONT",
    b"<TABLE",
    b"<A",
    b"<STYLE",
    b"<TITLE",
    b"<B",
    b"<BODY",
    b"<BR",
    b"<P",
    b"<!--",
];

const EXACT: [(&[u8], &str); 26] = [
    (b"%PDF-", "application/pdf"),
    (b"%!PS-Adobe-", "application/postscript"),
    (b"\xfe\xff", "text/plain; charset=utf-16be"),
    (b"\xff\xfe", "text/plain; charset=utf-16le"),
    (b"\xef\xbb\xbf", "text/plain; charset=utf-8"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
    (b"\x00\x00\x02\x00", "image/x-icon"),
    (b"BM", "image/bmp"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"ID3", "audio/mpeg"),
    (b"OggS\x00", "application/ogg"),
    (b"MThd\x00\x00\x00\x06", "audio/midi"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
    (b"\x00\x01\x00\x00", "font/ttf"),
    (b"OTTO", "font/otf"),
    (b"ttcf", "font/collection"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"\x1f\x8b\x08", "application/x-gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"Rar!\x1a\x07\x00", "application/x-rar-compressed"),
    (b"Rar!\x1a\x07\x01\x00", "application/x-rar-compressed"),
    (b"\x00asm", "application/wasm"),
];

/// A tag, without case, that a space or its end follows.
fn is_tag(text: &[u8], tag: &[u8]) -> bool {
    text.split_at_checked(tag.len())
        .is_some_and(|(start, rest)| {
            let is_ended = matches!(rest.first(), Some(b' ' | b'>'));
            start.eq_ignore_ascii_case(tag) && is_ended
        })
}

/// Containers that say further on what they contain.
fn contained(body: &[u8]) -> Option<&'static str> {
    let at = |from: usize, text: &[u8]| body.get(from..).is_some_and(|rest| rest.starts_with(text));
    if at(0, b"RIFF") {
        return match () {
            () if at(8, b"WEBPVP") => Some("image/webp"),
            () if at(8, b"AVI ") => Some("video/avi"),
            () if at(8, b"WAVE") => Some("audio/wave"),
            () => None,
        };
    }
    if at(0, b"FORM") && at(8, b"AIFF") {
        return Some("audio/aiff");
    }
    if at(0, b".snd") {
        return Some("audio/basic");
    }
    (at(4, b"ftyp") && at(8, b"mp4")).then_some("video/mp4")
}

fn is_binary(byte: u8) -> bool {
    matches!(byte, 0..=0x08 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_known_by_their_beginning() {
        let html = "text/html; charset=utf-8";
        let text = "text/plain; charset=utf-8";
        let check = |body: &[u8], expected: &str| {
            assert_eq!(content_type(body), expected, "{body:?}");
        };
        check(b"  <html>", html);
        check(b"<!doctype HTML>", html);
        check(b"<p class=x>", html);
        check(b"<pre>", text);
        check(b"<!-- x", html);
        check(b"\n<?xml version", "text/xml; charset=utf-8");
        check(b"{\"a\":1}", text);
        check("gr\u{fc}n\n".as_bytes(), text);
        check(b"\x89PNG\r\n\x1a\n..", "image/png");
        check(b"\xff\xd8\xff\xe0", "image/jpeg");
        check(b"GIF89a", "image/gif");
        check(b"RIFF....WEBPVP8", "image/webp");
        check(b"RIFF....XXXX", text);
        check(b"\x00\x00\x00\x18ftypmp42", "video/mp4");
        check(b"%PDF-1.4", "application/pdf");
        check(b"\x1f\x8b\x08\x00", "application/x-gzip");
        check(b"PK\x03\x04", "application/zip");
        check(b"\x00\x01", "application/octet-stream");
        check(b"\x1b[0m", text);
    }
}
