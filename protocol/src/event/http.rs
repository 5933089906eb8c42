//! The data of events that are HTTP requests.

use bytes::Bytes;

use super::Payload;
use super::payload::write_text;

/// What an event of the name `http` says of the request. A name stands in each list once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpData {
    /// Headers by canonical name, such as `X-Request-Id`; repeated ones joined by `, `. Without `Host`.
    pub headers: Vec<(String, String)>,
    /// Parameters of the query in the order they first came, each with its values in order.
    pub query: Vec<(String, Vec<String>)>,
    /// The body.
    pub body: Payload,
    /// The `Host` header.
    pub host: String,
    /// The path, decoded.
    pub path: String,
    /// The method.
    pub method: String,
    /// Values of the parameters of the route, as they stand in the path; `None` for the route `/`.
    pub params: Option<Vec<(String, String)>>,
}

impl HttpData {
    /// Writes it as one JSON object with exactly these members.
    pub fn to_payload(&self) -> Payload {
        let texts = |pairs: &[(String, String)]| {
            let lengths = pairs.iter().map(|(name, text)| name.len() + text.len() + 8);
            lengths.sum::<usize>()
        };
        let mut json = Vec::with_capacity(self.body.json_len() + texts(&self.headers) + 256);
        json.extend_from_slice(br#"{"headers":"#);
        write_texts(&self.headers, &mut json);
        json.extend_from_slice(br#","query":"#);
        write_object(&self.query, &mut json, |values, json| {
            json.push(b'[');
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    json.push(b',');
                }
                write_text(value, json);
            }
            json.push(b']');
        });
        json.extend_from_slice(br#","body":"#);
        self.body.write_json(&mut json);
        for (name, text) in [
            (br#","host":"#.as_slice(), &self.host),
            (br#","path":"#, &self.path),
            (br#","method":"#, &self.method),
        ] {
            json.extend_from_slice(name);
            write_text(text, &mut json);
        }
        json.extend_from_slice(br#","params":"#);
        match &self.params {
            Some(params) => write_texts(params, &mut json),
            None => json.extend_from_slice(b"null"),
        }
        json.push(b'}');
        Payload::Json(Bytes::from(json))
    }
}

fn write_texts(pairs: &[(String, String)], json: &mut Vec<u8>) {
    write_object(pairs, json, |text, json| write_text(text, json));
}

fn write_object<T>(
    members: &[(String, T)],
    json: &mut Vec<u8>,
    write_value: impl Fn(&T, &mut Vec<u8>),
) {
    json.push(b'{');
    for (index, (name, value)) in members.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        write_text(name, json);
        json.push(b':');
        write_value(value, json);
    }
    json.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, text)| ((*name).into(), (*text).into()))
            .collect()
    }

    /// Section 7: the members of `data`, exactly and in order.
    #[test]
    fn data_of_http_events_has_exactly_seven_members() {
        let data = HttpData {
            headers: pairs(&[("Accept", "a, b"), ("X-\"Q\"", "é")]),
            query: vec![("q".into(), vec!["1".into(), String::new()])],
            body: Payload::Json(Bytes::from_static(b"[1.0]")),
            host: "example.com:4000".into(),
            path: "/a b".into(),
            method: "POST".into(),
            params: Some(pairs(&[("id", "a%2Fb"), ("b", "")])),
        };
        let expected = r#"{"headers":{"Accept":"a, b","X-\"Q\"":"é"},"query":{"q":["1",""]},"body":[1.0],"host":"example.com:4000","path":"/a b","method":"POST","params":{"id":"a%2Fb","b":""}}"#;
        assert_eq!(data.to_payload().bytes(), expected);
        let bare = HttpData {
            headers: Vec::new(),
            query: Vec::new(),
            body: Payload::Bytes(Bytes::new()),
            params: None,
            ..data
        };
        let expected = r#"{"headers":{},"query":{},"body":"","host":"example.com:4000","path":"/a b","method":"POST","params":null}"#;
        assert_eq!(bare.to_payload().bytes(), expected);
    }
}
