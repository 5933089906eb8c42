//! The vectors that AWS publishes with its signers (aws-signing-test-suite, v4), those whose paths a client sends as they are signed.

use http::Request;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// A vector: its name, method, target, further headers, what is signed, body, and signature.
type Vector = (
    &'static str,
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
    &'static str,
);

const SIGNED_IN_HEADERS: &[Vector] = &[
    (
        "get-header-key-duplicate",
        "GET",
        "/",
        &[
            ("my-header1", "value2"),
            ("my-header1", "value2"),
            ("my-header1", "value1"),
        ],
        "host;my-header1;x-amz-date",
        "",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
    ),
    (
        "get-header-value-order",
        "GET",
        "/",
        &[
            ("my-header1", "value4"),
            ("my-header1", "value1"),
            ("my-header1", "value3"),
            ("my-header1", "value2"),
        ],
        "host;my-header1;x-amz-date",
        "",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
    ),
    (
        "get-header-value-trim",
        "GET",
        "/",
        &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
        "host;my-header1;my-header2;x-amz-date",
        "",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    ),
    (
        "get-relative-normalized",
        "GET",
        "/example/..",
        &[],
        "host;x-amz-date",
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-relative-relative-normalized",
        "GET",
        "/example1/example2/../..",
        &[],
        "host;x-amz-date",
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-slash-dot-slash-normalized",
        "GET",
        "/./",
        &[],
        "host;x-amz-date",
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-slash-normalized",
        "GET",
        "//",
        &[],
        "host;x-amz-date",
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-slash-pointless-dot-normalized",
        "GET",
        "/./example",
        &[],
        "host;x-amz-date",
        "",
        "ef75d96142cf21edca26f06005da7988e4f8dc83a165a80865db7089db637ec5",
    ),
    (
        "get-slashes-normalized",
        "GET",
        "//example//",
        &[],
        "host;x-amz-date",
        "",
        "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
    ),
    (
        "get-unreserved",
        "GET",
        "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        &[],
        "host;x-amz-date",
        "",
        "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
    ),
    (
        "get-vanilla",
        "GET",
        "/",
        &[],
        "host;x-amz-date",
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-vanilla-empty-query-key",
        "GET",
        "/?Param1=value1",
        &[],
        "host;x-amz-date",
        "",
        "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb",
    ),
    (
        "get-vanilla-query",
        "GET",
        "/",
        &[],
        "host;x-amz-date",
        "",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "get-vanilla-query-order-encoded",
        "GET",
        "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
        &[],
        "host;x-amz-date",
        "",
        "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
    ),
    (
        "get-vanilla-query-order-key-case",
        "GET",
        "/?Param2=value2&Param1=value1",
        &[],
        "host;x-amz-date",
        "",
        "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    ),
    (
        "get-vanilla-query-unreserved",
        "GET",
        "/?-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz=-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
        &[],
        "host;x-amz-date",
        "",
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    (
        "get-vanilla-utf8-query",
        "GET",
        "/?%E1%88%B4=bar",
        &[],
        "host;x-amz-date",
        "",
        "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04",
    ),
    (
        "post-header-key-case",
        "POST",
        "/",
        &[],
        "host;x-amz-date",
        "",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    (
        "post-header-key-sort",
        "POST",
        "/",
        &[("my-header1", "value1")],
        "host;my-header1;x-amz-date",
        "",
        "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c",
    ),
    (
        "post-header-value-case",
        "POST",
        "/",
        &[("my-header1", "VALUE1")],
        "host;my-header1;x-amz-date",
        "",
        "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
    ),
    (
        "post-vanilla",
        "POST",
        "/",
        &[],
        "host;x-amz-date",
        "",
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    (
        "post-vanilla-empty-query-value",
        "POST",
        "/?Param1=value1",
        &[],
        "host;x-amz-date",
        "",
        "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
    ),
    (
        "post-vanilla-query",
        "POST",
        "/?Param1=value1",
        &[],
        "host;x-amz-date",
        "",
        "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
    ),
    (
        "post-x-www-form-urlencoded",
        "POST",
        "/",
        &[
            ("content-type", "application/x-www-form-urlencoded"),
            ("content-length", "13"),
            (
                "x-amz-content-sha256",
                "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
            ),
        ],
        "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
        "Param1=value1",
        "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b",
    ),
    (
        "post-x-www-form-urlencoded-parameters",
        "POST",
        "/",
        &[
            (
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            ),
            ("content-length", "13"),
            (
                "x-amz-content-sha256",
                "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
            ),
        ],
        "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
        "Param1=value1",
        "328d1b9eaadca9f5818ef05e8392801e091653bafec24fcab71e7344e7f51422",
    ),
];

/// One that is signed in the query: its name, target and further headers.
type QueryVector = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const SIGNED_IN_QUERY: &[QueryVector] = &[
    (
        "get-header-value-trim",
        "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fservice%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host%3Bmy-header1%3Bmy-header2&X-Amz-Expires=3600&X-Amz-Signature=e7bb0fd515e125e1aec2ecc4c0c17484fb06f6846b927c35e46005dd3df3acd4",
        &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
    ),
    (
        "get-vanilla",
        "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fservice%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Expires=3600&X-Amz-Signature=e93c787ed7f371d5c6b165c1b38ede9550f4dce4144713e844b25b7192d3865d",
        &[],
    ),
    (
        "get-vanilla-query-order-key-case",
        "/?Param2=value2&Param1=value1&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fservice%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Expires=3600&X-Amz-Signature=86012e2c9ad4d77369f5d81c11f75158aae4f895a085212cc6d3f923d300bed5",
        &[],
    ),
    (
        "get-vanilla-utf8-query",
        "/?%E1%88%B4=bar&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fservice%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Expires=3600&X-Amz-Signature=0bdd809b1519ac4f0c1dc3540e2cc46bd0c7f778eda408b2ebf3b913d21ff600",
        &[],
    ),
];

fn request(method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
    let request = Request::builder().method(method).uri(target);
    let request = request.header("host", "example.amazonaws.com");
    let request = fields.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    request.body(()).unwrap().into_parts().0
}

fn hash(body: &str) -> String {
    hex::encode(Sha256::digest(body))
}

#[test]
fn requests_that_are_signed_in_headers_are_known() {
    for (name, method, target, fields, signed, body, signature) in SIGNED_IN_HEADERS {
        let scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={signed}, Signature={signature}"
        );
        let own = [
            ("x-amz-date", "20150830T123600Z"),
            ("authorization", &authorization),
        ];
        let fields = [fields, own.as_slice()].concat();
        let parts = request(method, target, &fields);
        let claim = Claim::read(&parts).unwrap().expect(name);
        assert!(claim.is_signed_by(SECRET, &parts, &hash(body)), "{name}");
        assert!(
            !claim.is_signed_by("another", &parts, &hash(body)),
            "{name}"
        );
        assert!(
            !claim.is_signed_by(SECRET, &parts, &hash("another")),
            "{name}"
        );
    }
}

#[test]
fn requests_that_are_signed_in_the_query_are_known() {
    for (name, target, fields) in SIGNED_IN_QUERY {
        let parts = request("GET", target, fields);
        let claim = Claim::read(&parts).unwrap().expect(name);
        assert_eq!(claim.expires, Some(3600));
        assert!(claim.is_signed_by(SECRET, &parts, &hash("")), "{name}");
        let other = target.replacen("20150830T1236", "20150830T1237", 1);
        let parts = request("GET", &other, fields);
        let claim = Claim::read(&parts).unwrap().expect(name);
        assert!(!claim.is_signed_by(SECRET, &parts, &hash("")), "{name}");
    }
}

/// As botocore signs `invoke` of an ARN: the path has escapes already, which are encoded once more.
#[test]
fn a_path_with_escapes_is_encoded_twice() {
    assert_eq!(
        canonical_path("/2015-03-31/functions/arn%3Aaws%3Alambda/invocations"),
        "/2015-03-31/functions/arn%253Aaws%253Alambda/invocations"
    );
    assert_eq!(
        canonical_query("Qualifier=%24LATEST&A=b+c"),
        "A=b%20c&Qualifier=%24LATEST"
    );
    assert_eq!(canonical_query("a=%ff&%zz"), "%25zz=&a=%25ff");
}

#[test]
fn what_is_not_signed_and_has_to_be_is_found() {
    let fields = [
        ("x-amz-date", "20150830T123600Z"),
        ("x-amz-invocation-type", "Event"),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=A/20150830/r/lambda/aws4_request,SignedHeaders=host;x-amz-date,Signature=0000000000000000000000000000000000000000000000000000000000000000",
        ),
    ];
    let parts = request("POST", "/", &fields);
    let claim = Claim::read(&parts).unwrap().unwrap();
    assert_eq!(
        claim.unsigned(&parts.headers),
        Some("x-amz-invocation-type")
    );
}

#[test]
fn what_is_not_whole_says_what_is_missing() {
    let check = |value: &str, expected: &str| {
        let fields = [("x-amz-date", "20150830T123600Z"), ("authorization", value)];
        let error = Claim::read(&request("GET", "/", &fields)).unwrap_err();
        assert!(error.0.contains(expected), "{value}: {error}");
    };
    check("AWS4-HMAC-SHA256", "expected Credential");
    check(
        "AWS4-HMAC-SHA256 Credential=A/20150830/r/lambda/aws4_request",
        "'SignedHeaders'",
    );
    check(
        "AWS4-HMAC-SHA256 Credential=A, SignedHeaders=host, Signature=00",
        "Credential is \"A\"",
    );
    check(
        "AWS4-HMAC-SHA256 Credential=A/20150830/r/lambda/aws4_request, SignedHeaders=host, Signature=00",
        "Signature is not",
    );
    let parts = request("GET", "/", &[("authorization", "Bearer x")]);
    assert_eq!(Claim::read(&parts), Ok(None));
    let parts = request("GET", "/?X-Amz-Signature=00", &[]);
    assert!(Claim::read(&parts).is_err());
}
